"""`%%chat --each`: a question about every row, with progress, an interrupt that keeps what is there, and the
conversation left alone."""

import pytest

OPTIONS = "--max-tokens 4 -t 0"


@pytest.fixture
def rows(kernel):
    kernel.run(
        "import pandas\ndf = pandas.DataFrame({'n': [1, 2, 3], 'text': ['cat', 'dog', 'red']}, index=list('abc'))"
    )
    return kernel


def test_the_answers_are_a_column_and_the_conversation_stays_as_it_is(rows):
    cell = rows.run(f"%%chat --each df.text -o found {OPTIONS}\nIs this an animal: {{text}}?")
    assert cell.reply["status"] == "ok" and cell.text.startswith("3 of 3 rows answered · ")
    rows.run("import nbllm\nfrom nbllm.jupyter import session\n"
             "expected = [nbllm.Chat(session.running().model)(f'Is this an animal: {text}?', temperature=0, "
             "max_tokens=4).text for text in df.text]")  # fmt: skip
    assert rows.value("list(found) == expected and list(found.index) == list('abc')")
    assert rows.value("__import__('nbllm.jupyter.session').jupyter.session.running().shelf.current.messages") == []


def test_without_a_place_for_the_row_it_stands_below_and_the_answers_are_the_cell_s_result(rows):
    cell = rows.run(f"%%chat --each df.text {OPTIONS}\nName a colour.")
    (result,) = cell.of("execute_result")
    below = rows.run(f"%%chat --each df.text -o below {OPTIONS}\nName a colour.\n\n{{}}")
    assert below.reply["status"] == "ok"
    assert result["data"]["text/plain"] == rows.run("print(below)").printed.rstrip("\n")
    table = rows.run(f"%%chat --each df -o table {OPTIONS}\n{{n}} times {{text}}")
    assert table.reply["status"] == "ok" and rows.value("len(table)") == 3


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--each nothing", "there is no 'nothing'"),
        ("--each df", "names none of n, text"),
        ("--each df.n.sum", "one cannot go"),
    ],
)
def test_a_mistake_is_one_line(rows, line, words):
    cell = rows.run(f"%%chat {line}\nName a colour.")
    assert len(cell.error) == 1 and words in cell.error[0]


def test_an_interrupt_keeps_what_is_there_and_the_same_cell_goes_on(rows):
    ask = "%%chat --each many -o found --max-tokens 24 -t 1\nTell me of {}."
    rows.run("many = [f'number {n}' for n in range(400)]")
    cell = rows.start(ask)
    cell.until(lambda cell: any(", 1 " not in text and " rows, " in text for text in shown(cell)))
    rows.interrupt()
    cell.finish()
    (line,) = cell.error
    done = int(line.split()[2])
    assert line == f"Stopped after {done} of 400 rows; run the cell again to go on from there." and 0 < done < 400
    assert rows.value("sum(answer is not None for answer in found)") == done
    rows.run("kept = list(found)")
    again = rows.start(ask)
    again.until(lambda cell: any(f"{done} of 400 rows" in text for text in shown(cell)))
    rows.interrupt()
    again.finish()
    assert rows.value("all(a == b for a, b in zip(kept, found) if a is not None)")


def shown(cell):
    return [update["data"]["text/plain"] for update in cell.updates]
