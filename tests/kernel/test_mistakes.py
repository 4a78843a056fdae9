"""A user's mistakes: each is one line that says what and what to do, and the Jupyter kernel goes on."""

import pytest
from kernel.kernels import Kernel


@pytest.fixture(scope="module")
def kernel(tiny_model):
    with Kernel() as kernel:
        kernel.run(f"%load_ext nbllm\n%config NbLLM.model = {str(tiny_model)!r}")
        yield kernel


MISTAKES = {  # cell: (error's name, what its line says)
    "%%chat --nope\nhello": ("OptionError", "unrecognized arguments: --nope"),
    "%%chat --temp 1\nhello": ("OptionError", "unrecognized arguments: --temp"),
    "%%chat hello\nhello": ("OptionError", "unrecognized arguments: hello"),
    "%%chat -t 900\nhello": ("OptionError", "temperature=900.0 is out of range"),
    "%%chat -t nan\nhello": ("OptionError", "temperature=nan is out of range"),
    "%%chat --top-p 1.5\nhello": ("OptionError", "top_p=1.5 is out of range"),
    "%%chat --max-tokens 0\nhello": ("OptionError", "max_tokens=0 is out of range"),
    "%%chat --seed -1\nhello": ("OptionError", "seed=-1 is out of range"),
    "%%chat --seed many\nhello": ("OptionError", "invalid int value: 'many'"),
    "%%chat --seed\nhello": ("OptionError", "expected one argument"),
    "%%chat --stop ''\nhello": ("OptionError", "stop=['']"),
    "%%chat -o 2x\nhello": ("OptionError", "'2x' is not a name for a variable"),
    "%%chat -o class\nhello": ("OptionError", "'class' is not a name for a variable"),
    "%%chat --system 'you are\nhello": ("OptionError", "no closing quotation"),
    "%%chat\n \n\t\n": ("NbLLMError", "the prompt is empty"),
    "%%chat --with nothing\nhello": ("OptionError", "--with: there is no 'nothing'"),
    "%chat fix": ("NbLLMError", "no cell has failed since nbllm was loaded"),
    "%chat retry": ("OptionError", "the conversation is empty"),
    "%chat retry --new": ("OptionError", "%chat retry: unrecognized arguments: --new"),
    "%chat undo": ("OptionError", "1 cannot be taken back: the conversation is empty"),
    "%chat undo two": ("OptionError", "'two' is no number of exchanges"),
    "%chat undo 0": ("OptionError", "'0' is no number of exchanges"),
    f"%chat undo {'9' * 5000}": ("OptionError", "is no number of exchanges; give 1 for the last, or 2, 3, ..."),
    "%chat undo 999": ("OptionError", "999 cannot be taken back: the conversation is empty"),
    "%chat edit 0": ("OptionError", "'0' is no number of exchanges"),
    "%chat edit": ("OptionError", "1 cannot be taken back: the conversation is empty"),
    "%chat switch nowhere": ("OptionError", "there is no conversation 'nowhere'"),
    "%chat save": ("OptionError", "name a file"),
    "%chat save ~there-is-no-such-user/talk": ("ConversationFileError", "there is no such home folder"),
    "%chat load /no/such/file": ("ConversationFileError", "/no/such/file cannot be read"),
    "%chat export /no/such/file": ("ConversationFileError", "/no/such/file cannot be written"),
    "%chat what is this": ("OptionError", "%chat has no 'what'"),
    "%chat model /no/such/file.gguf": ("ModelNotFoundError", "/no/such/file.gguf"),
    "%chat model no-such-name": ("ModelNotFoundError", "no-such-name"),
    "%chat model /": ("ModelNotFoundError", "folder"),
}


@pytest.mark.parametrize("code", MISTAKES, ids=[code.replace("\n", " ")[:60] for code in MISTAKES])
def test_is_one_line(kernel, code):
    name, message = MISTAKES[code]
    cell = kernel.run(code)
    assert cell.reply["status"] == "error" and cell.reply["ename"] == name
    (line,) = cell.error
    assert "\n" not in line and line.startswith(name) and message in line
    assert kernel.run("1 + 1").reply["status"] == "ok"


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"GGUF", None], ids=["empty", "text", "magic", "cut"])
def test_a_file_that_is_no_model_is_refused_and_the_old_model_stays(kernel, content, tiny_model, tmp_path):
    file = tmp_path / "other.gguf"
    file.write_bytes(tiny_model.read_bytes()[:-1000] if content is None else content)
    cell = kernel.run(f"%chat model {file}")
    (line,) = cell.error
    assert line.startswith("ModelFileError: ") and "\n" not in line
    assert kernel.run("%%chat --max-tokens 2\nhello").made["model"] in str(tiny_model)


def test_a_prompt_longer_than_the_context_names_both_numbers(kernel):
    context = kernel.run("%%chat --max-tokens 2\nhello") and kernel.value(
        "__import__('nbllm.jupyter.session').jupyter.session.running().model.context"
    )
    cell = kernel.run("%%chat\n" + "hello world " * context)
    (line,) = cell.error
    assert line.startswith("ContextFullError: ") and f"{context:,}" in line
    assert kernel.run("%%chat --max-tokens 2\nhello").made["generated_tokens"] <= 2


def test_a_variable_that_cannot_be_text_is_named(kernel):
    kernel.run("class Bad:\n    def __str__(self):\n        raise RuntimeError('no text')\nbad = Bad()")
    (line,) = kernel.run("%%chat\n{bad}").error
    assert "{bad}" in line and "no text" in line


def test_a_setting_out_of_range_is_told_when_it_is_used_and_can_be_mended(kernel):
    kernel.run("%config NbLLM.temperature = -1")
    (line,) = kernel.run("%%chat\nhello").error
    assert "temperature=-1.0 is out of range" in line
    kernel.run("%config NbLLM.temperature = 0")
    assert kernel.run("%%chat --max-tokens 2\nhello").reply["status"] == "ok"


def test_without_a_model_and_offline_the_line_names_both_ways(tmp_path, monkeypatch):
    monkeypatch.setenv("NBLLM_MODELS", str(tmp_path / "models"))
    for name, value in {
        "PIP_INDEX_URL": "http://127.0.0.1:9",
        "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": "/dev/null",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with Kernel() as kernel:
        kernel.run("%load_ext nbllm")
        cell = kernel.run("%%chat\nhello")
        (line,) = cell.error
        assert line.startswith("DownloadError: ") and "when online" in line and "%chat model PATH" in line
        assert any("downloading" in update["data"]["text/plain"] for update in cell.updates)
        assert kernel.run("1 + 1").reply["status"] == "ok"
