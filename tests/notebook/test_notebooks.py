"""Notebooks executed without a browser: the demo by its own runner, a small chat by nbconvert and by papermill."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

DEMOS = Path(__file__).resolve().parents[2] / "demo_notebooks"


def replies(notebook):
    """The outputs of the cells that ask, one each."""
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source.startswith("%%chat"):
            (output,) = cell.outputs
            yield output


@pytest.fixture
def models(default_model, monkeypatch):
    monkeypatch.setenv("NBLLM_MODELS", str(default_model.parent))


@pytest.fixture
def small(tmp_path, default_model):
    """Path of a notebook that asks twice."""
    sources = [f"%load_ext nbllm\n%config NbLLM.model = {str(default_model)!r}", "%%chat -t 0 --max-tokens 20\nhello",
               "%%chat -o last -t 0 --max-tokens 20\nAnd what is 1 + 1?", "last.text"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / "small.ipynb"
    nbformat.write(notebook, path)
    return path


def run(*command, **options):
    """The output of a command; a failure shows it."""
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=110, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_demo_runs_streams_and_keeps_its_replies(models, tmp_path):
    executed = tmp_path / "executed.ipynb"
    shown = run(sys.executable, str(DEMOS / "run.py"), str(DEMOS / "01_first_chat.ipynb"), str(executed))
    notebook = nbformat.read(executed, as_version=4)
    outputs = list(replies(notebook))
    assert len(outputs) == 6
    for output in outputs:
        made = output.metadata["nbllm"]
        assert made["state"] == "done" and made["generated_tokens"] > 0 and made["sampling"]["temperature"] == 0
        assert set(output.data) == {"text/plain", "text/markdown"} and output.data["text/plain"].strip() in shown
    last, follow_up = (output.metadata["nbllm"] for output in outputs[3:5])
    assert follow_up["reused_tokens"] >= last["prompt_tokens"] + last["generated_tokens"] - 1
    table = (
        next(cell for cell in notebook.cells if "the article" in cell.source and cell.cell_type == "code")
        .outputs[0]
        .data["text/markdown"]
    )
    seconds = [f"{output.metadata['nbllm']['prefill_seconds'] + output.metadata['nbllm']['decode_seconds']:.1f} seconds"
               for output in outputs[:4]]
    assert [row.split("|")[2:4] for row in table.splitlines()[2:]] == [
        [f" {article} ", f" {here} "]
        for article, here in zip(["10 minutes", "half an hour", "2 hours", "hours"], seconds)
    ]  # fmt: skip
    assert str(executed) in shown.splitlines()[-1] and "make lab" in shown.splitlines()[-1]


def test_the_demo_is_committed_without_outputs():
    notebook = nbformat.read(DEMOS / "01_first_chat.ipynb", as_version=4)
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in notebook.cells)


def test_the_demo_of_structured_output_runs_and_is_committed_with_what_it_shows(models, tmp_path):
    pytest.importorskip("llguidance", reason="replies that fit a schema need the extra `grammar`")
    source = DEMOS / "02_structured_output.ipynb"
    run(sys.executable, str(DEMOS / "run.py"), str(source), str(tmp_path / "executed.ipynb"))
    executed, committed = (nbformat.read(path, as_version=4) for path in (tmp_path / "executed.ipynb", source))
    assert [output.data["text/plain"] for output in replies(executed)] == [
        output.data["text/plain"] for output in replies(committed)
    ]  # fmt: skip
    frame = next(cell for cell in executed.cells if "frame()" in cell.source and cell.cell_type == "code").outputs[0]
    assert frame.data["text/plain"].split() == "name age city 1 Tom 29 Porto 0 Anna 34 Lisbon 2 Rosa 61 Faro".split()


def test_the_demo_of_probabilities_and_guesses_runs_and_is_committed_with_what_it_shows(models, tmp_path):
    source = DEMOS / "07_probabilities_and_guesses.ipynb"
    run(sys.executable, str(DEMOS / "run.py"), str(source), str(tmp_path / "executed.ipynb"))
    executed, committed = (
        {cell.source: cell.outputs for cell in nbformat.read(path, as_version=4).cells if cell.get("outputs")}
        for path in (tmp_path / "executed.ipynb", source)
    )
    assert executed.keys() == committed.keys()
    (table,) = (each for each in committed if "compare(question)" in each)
    for each in committed.keys() - {table, "%chat stats"}:  # these two tell times
        # what is printed comes in as many pieces as time makes of it
        assert "".join(map(said, executed[each])) == "".join(map(said, committed[each]))
    assert [set(output.data) for output in executed["answer.tokens"]] == [{"text/plain", "image/svg+xml"}]
    for shown in (executed, committed):
        copied = shown[table][0].data["text/plain"].splitlines()[1].removeprefix("a list again").split()
        assert int(copied[0]) == 61 and int(copied[1]) > 0


def test_the_demo_of_a_column_runs_and_is_committed_with_what_it_shows(models, tmp_path):
    pytest.importorskip("llguidance", reason="replies that fit a schema need the extra `grammar`")
    source = DEMOS / "06_a_column_and_a_cluster.ipynb"
    run(sys.executable, str(DEMOS / "run.py"), str(source), str(tmp_path / "executed.ipynb"))
    results = [
        [
            output.data["text/plain"]
            for cell in nbformat.read(path, as_version=4).cells
            for output in cell.get("outputs", ())
            if "data" in output
        ]
        for path in (tmp_path / "executed.ipynb", source)
    ]
    assert results[0] == results[1] and results[0][1] == "True"


def test_the_demo_of_the_local_llm_kernel_runs_and_is_committed_with_what_it_shows(models, tmp_path, monkeypatch):
    from nbllm.jupyter.install import install

    install(prefix=tmp_path)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
    source = DEMOS / "03_local_llm.ipynb"
    run(sys.executable, str(DEMOS / "run.py"), str(source), str(tmp_path / "executed.ipynb"))
    executed, committed = (
        [
            [said(output) for output in cell.outputs]
            for cell in nbformat.read(path, as_version=4).cells
            if "outputs" in cell
        ]
        for path in (tmp_path / "executed.ipynb", source)
    )
    assert executed == committed
    assert [len(outputs) for outputs in committed] == [0, 1, 1, 1, 2, 1, 1]


def said(output):
    """What an output says, without the times that are told beside it."""
    return output.text if output.output_type == "stream" else output.data["text/plain"]


def test_the_demo_of_the_panel_runs_and_is_committed_with_its_transcript(models, tmp_path):
    source, target = DEMOS / "04_panel.ipynb", tmp_path / "executed.ipynb"
    printed = run(sys.executable, str(DEMOS / "run.py"), str(source), str(target))
    assert "The chat panel; its transcript follows." in printed and "<details>" not in printed
    executed, committed = (nbformat.read(path, as_version=4) for path in (target, source))
    assert [cell.source for cell in executed.cells] == [cell.source for cell in committed.cells]
    for notebook in (executed, committed):
        widget, transcript = notebook.cells[2].outputs
        (answer,) = replies(notebook)
        assert "application/vnd.jupyter.widget-view+json" in widget.data
        assert transcript.data["text/plain"].startswith("user: Write two sentences about the sea.\n\nassistant: ")
        assert transcript.data["text/plain"].endswith(
            f"user: Now say it in one sentence.\n\nassistant: {answer.data['text/plain']}"
        )
    assert executed.cells[2].outputs[1].data == committed.cells[2].outputs[1].data
    run(sys.executable, "-m", "nbconvert", "--to", "html", str(target))
    assert "<p>Write two sentences about the sea.</p>" in target.with_suffix(".html").read_text(encoding="utf-8")


def test_the_demo_of_a_data_frame_runs_and_is_committed_with_what_it_shows(models, tmp_path):
    source = DEMOS / "05_data_frame.ipynb"
    run(sys.executable, str(DEMOS / "run.py"), str(source), str(tmp_path / "executed.ipynb"))
    executed, committed = (nbformat.read(path, as_version=4) for path in (tmp_path / "executed.ipynb", source))
    texts = [output.data["text/plain"] for output in replies(executed)]
    assert texts == [output.data["text/plain"] for output in replies(committed)] and len(texts) == 2
    footers = [output.data["text/markdown"].splitlines()[-1] for output in replies(executed)]
    assert "with the value of largest" in footers[0] and "with a description of planets" in footers[1]
    error, mended = (cell.outputs[0] for cell in executed.cells if cell.source.startswith(('"There', "%chat fix")))
    assert error.ename == "TypeError" and "```python" in mended.data["text/plain"]


def test_a_failing_cell_ends_the_runner_with_its_line(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("%load_ext nbllm\n%chat nonsense")])
    nbformat.write(notebook, tmp_path / "bad.ipynb")
    done = subprocess.run([sys.executable, str(DEMOS / "run.py"), str(tmp_path / "bad.ipynb")],
                          capture_output=True, text=True, timeout=110)
    assert done.returncode == 1 and "%chat has no 'nonsense'" in done.stderr and "Traceback" not in done.stderr
    assert nbformat.read(tmp_path / "bad.executed.ipynb", as_version=4).cells[0].outputs[0].output_type == "error"


def test_nbconvert_executes_it_and_its_html_has_the_replies(small):
    run(sys.executable, "-m", "nbconvert", "--execute", "--to", "notebook", "--output", "executed.ipynb", str(small))
    notebook = nbformat.read(small.with_name("executed.ipynb"), as_version=4)
    texts = [output.data["text/plain"] for output in replies(notebook)]
    assert len(texts) == 2 and all(texts)
    assert notebook.cells[-1].outputs[0].data["text/plain"] == repr(texts[-1])
    run(sys.executable, "-m", "nbconvert", "--to", "html", str(small.with_name("executed.ipynb")))
    assert texts[0].split()[0] in small.with_name("executed.html").read_text(encoding="utf-8")


def test_papermill_executes_it_with_the_same_replies(small):
    run(sys.executable, "-m", "nbconvert", "--execute", "--to", "notebook", "--output", "one.ipynb", str(small))
    run(sys.executable, "-m", "papermill", "--no-progress-bar", str(small), str(small.with_name("two.ipynb")))
    one, two = ([output.data["text/plain"] for output in replies(nbformat.read(small.with_name(name), as_version=4))]
                for name in ("one.ipynb", "two.ipynb"))
    assert one == two != []
