"""Nothing that a model, a file or a conversation says becomes markup:
a Jupyter kernel publishes Markdown and plain text only."""

import ast
import re
from pathlib import Path

import pytest
import tiny_gguf
from kernel.kernels import Kernel

import nbllm
from nbllm.jupyter.commands import COMMANDS

HOSTILE = "<img/src=x/onerror=alert({})>"
TAG = re.compile(r"(?<!\\)<(?=[a-zA-Z/!?])")  # as CommonMark has it, unless a backslash takes it away
PLAIN = {"text/plain", "text/markdown"}
OWN = ("<details>\n<summary>Transcript</summary>\n\n", "\n\n</details>",  # around the transcript of the panel
       ", in <module>")  # of a traceback, in a block of code
PICTURE, WIDGET = "image/svg+xml", "application/vnd.jupyter.widget-view+json"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A Jupyter kernel whose model writes, and is called, HTML."""
    folder = tmp_path_factory.mktemp("hostile")
    tokens = list(tiny_gguf.tokenizer_metadata()["tokenizer.ggml.tokens"])
    tokens = tokens[:3] + [HOSTILE.format(i) for i in range(3, len(tokens))]
    metadata = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.merges": [], "general.name": HOSTILE.format("name")}
    path = tiny_gguf.write_llama(folder / "<b>bold<b>.gguf", metadata=metadata, context=2048)
    with Kernel() as kernel:
        code = f"%load_ext nbllm\n%config NbLLM.model = {str(path)!r}\n%config NbLLM.seed = 1\n"
        code += "%config NbLLM.max_tokens = 30"
        assert kernel.run(code).reply["status"] == "ok"
        yield kernel, folder


def assert_inert(bundle):
    """Markdown without a tag but our own, a picture whose texts are escaped, and a widget, which has no text at all."""
    markup = bundle.get("text/markdown", "")
    for own in OWN:
        markup = markup.replace(own, "")
    found = TAG.search(markup)
    assert not found, markup[max(0, found.start() - 80) : found.start() + 80]
    assert "<img" not in bundle.get(PICTURE, "")
    assert set(bundle) <= PLAIN | {PICTURE, WIDGET} and set(bundle.get(WIDGET, {})) <= {
        "version_major",
        "version_minor",
        "model_id",
    }


def published(cell):
    """The MIME bundles of a cell's outputs."""
    return [content["data"] for content in cell.of("display_data", "update_display_data", "execute_result")]


def test_all_commands_publish_markdown_and_plain_text_only(hostile):
    kernel, folder = hostile
    talk = folder / "talk.jsonl"
    arguments = {
        "switch": "main", "save": repr(str(talk)), "load": repr(str(talk)), "export": repr(str(folder / "talk.md")),
        "undo": "", "new": HOSTILE.format("new"), "branch": HOSTILE.format("branch"),
    }  # fmt: skip
    cells = [kernel.run(f"%%chat\n{HOSTILE.format('question')}"), kernel.run("%%chat\nagain\n"), kernel.run("1/0")]
    order = [
        "save", "load", "export", *(name for name in COMMANDS if name not in arguments), "undo", "branch", "new",
        "list",
    ]  # fmt: skip
    cells += [kernel.run(f"%chat {name} {arguments.get(name, '')}") for name in order]
    told = [cell.reply["evalue"] for cell in cells[3:] if cell.reply["status"] == "error"]
    assert [line for line in told if "no block of Python" not in line] == []  # which `%chat fix` says of such a reply
    bundles = [bundle for cell in cells for bundle in published(cell)]
    # else there is nothing to be seen here
    assert any("<img" in bundle.get("text/plain", "") for bundle in published(cells[0]))
    assert any("alert" in bundle["text/plain"] for bundle in published(cells[-1]))
    for bundle in bundles:
        assert_inert(bundle)
    payloads = [payload for cell in cells for payload in cell.reply.get("payload", ())]
    assert {payload["source"] for payload in payloads} == {"set_next_input"}


def test_a_reply_as_the_value_of_a_cell_is_plain_text(hostile):
    kernel, _ = hostile
    kernel.run("%%chat -o reply\nhello")
    (bundle,) = published(kernel.run("reply"))
    assert set(bundle) <= PLAIN


def test_a_saved_conversation_with_markup_is_text(hostile):
    kernel, folder = hostile
    assert kernel.run("%%chat --new\nhello").reply["status"] == "ok"
    path = folder / "evil.jsonl"
    code = (
        "from nbllm.chat.saved import save\nfrom nbllm.chat.transcript import Transcript\n"
        f"save(Transcript(None, [{{'role': 'user', 'content': '<script>1</script>'}}, "
        f"{{'role': 'assistant', 'content': '<script>1</script>'}}]), {str(path)!r})"
    )
    assert kernel.run(code).reply["status"] == "ok", kernel.run(code).error
    cells = [kernel.run(f"%chat load {str(path)!r}"), kernel.run("%chat list")]
    for bundle in [bundle for cell in cells for bundle in published(cell)]:
        assert_inert(bundle)


def test_no_source_makes_html():
    """No output of that type is made, no object shows itself so, and nothing is declared safe for it."""
    for path in Path(nbllm.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = {getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None)}
            assert not names & {"HTML", "Javascript", "SVG", "IFrame", "_repr_html_", "_repr_javascript_"}, path
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in ("text/html", "application/javascript"), path
