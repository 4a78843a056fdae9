"""In a Jupyter kernel: replies that fit a schema, tokens with probabilities, stats, a conversation with its cache."""

import json
import xml.etree.ElementTree as ET

from kernel.kernels import Kernel

CLASS = """
import dataclasses
from typing import Literal
@dataclasses.dataclass
class Animal:
    name: str
    legs: Literal[0, 2, 4, 6, 8]
short = {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string", "maxLength": 9}},
         "required": ["name"]}, "minItems": 2, "maxItems": 2}
"""


def test_a_cell_asks_for_a_class_and_keeps_an_instance(kernel):
    kernel.run(CLASS)
    cell = kernel.run("%%chat --schema Animal -o a -t 0\nTell me of the spider.")
    (output,) = cell.outputs
    assert output["data"]["text/markdown"].startswith("```json\n" + cell.text + "\n```")
    assert cell.made["sampling"]["repeat_penalty"] == 1.0 and cell.made["finish_reason"] == "end"
    assert kernel.value("[type(a.value) is Animal, a.value.legs in (0, 2, 4, 6, 8), a.value.name]") == [
        True, True, json.loads(cell.text)["name"],
    ]  # fmt: skip
    assert cell.made["schema"]["properties"]["legs"] == {"enum": [0, 2, 4, 6, 8]}
    assert '"enum": [0, 2, 4, 6, 8]' in kernel.run("%chat prompt").printed


def test_a_list_of_objects_is_a_frame_and_retry_takes_the_schema_too(kernel):
    kernel.run(CLASS)
    kernel.run("%%chat --schema short -o two --max-tokens 60\nName two animals.")
    assert kernel.value("[len(two.value), list(two.frame().columns), len(two.frame())]") == [2, ["name"], 2]
    kernel.run("%chat retry --schema short -o again --max-tokens 60")
    assert kernel.value("len(again.value)") == 2
    questions = kernel.value("[m['content'] for m in __import__('nbllm.jupyter.session')"
                             ".jupyter.session.running().shelf.current.messages[::2]]")  # fmt: skip
    assert len(questions) == 1 and questions[0].count("Answer with JSON") == 1


def test_mistakes_are_one_line_and_are_told_before_anything_is_asked(kernel):
    kernel.run("bad = {'type': 'text'}; here = [1]")
    for line, message in (
        ("--schema nothing", "there is no schema 'nothing'"), ("--schema bad", "the schema cannot be used"),
        ("--schema here", "is no schema"), ("--schema bad --json", "both given"),
    ):  # fmt: skip
        (shown,) = kernel.run(f"%%chat {line}\nx").error
        assert message in shown and shown.startswith("OptionError: ")
    kernel.run("%%chat --schema list[str] -o cut --max-tokens 2\nx")
    (shown,) = kernel.run("cut.value").error
    assert shown.startswith("NbLLMError: this reply is no whole JSON, since it was cut (length)")


def test_a_kept_reply_shows_its_tokens_and_one_that_is_not_kept_costs_nothing(kernel):
    kernel.run("%%chat -o said --max-tokens 4 -t 0\nSay hello.")
    (shown,) = kernel.run("said.tokens").of("execute_result")
    assert set(shown["data"]) == {"text/plain", "image/svg+xml"}
    assert shown["data"]["text/plain"].startswith("token") and len(shown["data"]["text/plain"].splitlines()) == 5
    ET.fromstring(shown["data"]["image/svg+xml"])
    assert kernel.value("[len(t.alternatives) for t in said.tokens]") == [5] * 4
    assert kernel.value("''.join(t.text for t in said.tokens) == said.text")
    assert kernel.value("all(0 < t.probability <= 1 for t in said.tokens)")
    kernel.run("%%chat --max-tokens 4\nAnd again.")
    assert kernel.value("[t.probability for t in __import__('nbllm.jupyter.session').jupyter.session.running()"
                        ".chat.last.tokens]") == [None] * 4  # fmt: skip


def test_stats_are_a_picture_and_a_table(kernel):
    assert kernel.run("%chat stats").printed == "nothing was asked yet; ask with %%chat\n"
    made = [kernel.run(f"%%chat --max-tokens {n}\nquestion | {n}").made for n in (3, 5)]
    picture, table = (content["data"] for content in kernel.run("%chat stats").of("display_data"))
    root = ET.fromstring(picture["image/svg+xml"])
    assert sum(element.tag.endswith("rect") for element in root.iter()) == 1 + 3 * 2
    rows = [[cell.strip() for cell in line.replace("\\|", "/").split("|")[1:-1]]
            for line in table["text/markdown"].splitlines()[4:]]  # fmt: skip
    assert rows == [
        [str(n + 1), str(one["prompt_tokens"] - one["reused_tokens"]), str(one["reused_tokens"]),
         str(one["generated_tokens"]), str(one["guessed_tokens"]), f"{one['prefill_seconds']:.2f} s",
         f"{one['generated_tokens'] / one['decode_seconds']:.1f}", f"question / {asked}"]
        for n, (one, asked) in enumerate(zip(made, (3, 5), strict=True))
    ]  # fmt: skip


def test_a_restarted_jupyter_kernel_goes_on_without_reading_the_conversation_again(kernel, default_model, tmp_path):
    path = tmp_path / "my talk.jsonl"
    kernel.run("%%chat --max-tokens 5\nMy name is Aurora. " + "The moon is far away. " * 30)
    kernel.run("%%chat --max-tokens 5\nAnd yours?")
    assert kernel.run(f"%chat save '{path}' --cache").text == f"Saved 2 exchanges in {path}, with its cache."
    expected = kernel.run("%%chat --max-tokens 9 -t 0\nWhat is my name?")
    with Kernel() as restarted:
        restarted.run(f"%load_ext nbllm\n%config NbLLM.model = {str(default_model)!r}\n%config NbLLM.seed = 1")
        assert restarted.run(f"%chat load '{path}'").text == "Conversation my talk goes on after 2 exchanges."
        cell = restarted.run("%%chat --max-tokens 9 -t 0\nWhat is my name?")
        assert cell.text == expected.text and cell.made["reused_tokens"] == expected.made["reused_tokens"] > 200
        table = restarted.run("%chat stats").of("display_data")[1]["data"]["text/plain"]
        assert [line.split()[0] for line in table.splitlines()[2:]] == ["1", "2", "3"] and table.count(" s ") >= 3
        restarted.run("%config NbLLM.cache_bits = 8")
        restarted.run("%chat new")
        told = restarted.run(f"%chat load '{path}'").text
        assert "will be read again; its cache is not used: it was made with another cache_bits." in told


def test_a_terminal_gets_plain_text():
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    from nbllm.chat.transcript import Answer, Transcript
    from nbllm.jupyter import session
    from nbllm.jupyter.commands import COMMANDS
    from nbllm.jupyter.config import settings
    from nbllm.runtime.events import Stats

    shell = InteractiveShell()
    answer = Answer(role="assistant", content="yes")
    answer.stats = Stats(10, 4, 8, 0.5, 2.0, 3)
    try:
        turns = [{"role": "user", "content": "is it?"}, answer, {"role": "user", "content": "and?"}, {"content": "no"}]
        session.session(settings(shell)).shelf.conversations["1"] = Transcript(None, turns)
        with capture_output() as shown:
            COMMANDS["stats"].run(shell, "")
    finally:
        session.close()
    assert [line.split() for line in shown.stdout.splitlines()[2:]] == [
        ["1", "6", "4", "8", "3", "0.50", "s", "4.0", "is", "it?"], ["2", "and?"],
    ]  # fmt: skip
    assert shown.outputs == []
