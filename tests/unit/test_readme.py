"""The README is true: its Python runs, and the options and commands it lists are those of the code."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from nbllm.runtime.options import Sampling

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_its_python_runs(snippet, default_model, monkeypatch, capsys):
    monkeypatch.setenv("NBLLM_MODELS", str(default_model.parent))
    exec(compile(snippet, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("option", fields(Sampling), ids=lambda option: option.name)
def test_its_table_gives_the_default_and_meaning_of_each_sampling_option(option):
    default = f" {option.default} |" if option.default not in (None, ()) else " |"
    assert f"| `--{option.name.replace('_', '-')}` |{default} {option.metadata['help']} |" in README


def test_its_table_lists_the_options_of_the_cell_magic_and_no_others():
    from nbllm.jupyter.magics import ChatMagics

    accepted = set(re.findall(r"--[a-z][a-z-]*", ChatMagics.ask.__doc__))
    assert set(re.findall(r"^\| `(--[a-z-]+)` \|", README, re.MULTILINE)) == accepted


def test_it_lists_the_commands_of_the_line_magic_with_their_help(capsys):
    from IPython.core.interactiveshell import InteractiveShell

    from nbllm.jupyter.magics import ChatMagics

    ChatMagics(InteractiveShell()).command("help")
    shown = re.findall(r"^%chat (\S.*?)  +(\S.*)$", capsys.readouterr().out, re.MULTILINE)
    assert re.findall(r"^\| `%chat ([^.`]+)` \| (.+) \|$", README, re.MULTILINE) == shown


def test_it_lists_the_commands_of_the_shell(capsys):
    from nbllm.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    accepted = re.findall(r"^    ([a-z][a-z-]*)(?: |$)", capsys.readouterr().out, re.MULTILINE)
    assert sorted(re.findall(r"^    nbllm ([a-z-]+)", README, re.MULTILINE)) == sorted(accepted)


def test_it_lists_the_environment_variables_that_the_code_reads():
    sources = (Path(__file__).resolve().parents[2] / "nbllm").rglob("*.py")
    read = {name for source in sources for name in re.findall(r"NBLLM_[A-Z_]+", source.read_text(encoding="utf-8"))}
    assert set(re.findall(r"^\| `(NBLLM_[A-Z_]+)` \|", README, re.MULTILINE)) == read


def test_it_names_the_block_types_that_are_computed_and_no_others():
    from nbllm.runtime.packed import LAYOUTS

    models = README.partition("## Models")[2].partition("##")[0]
    assert set(re.findall(r"\b(?:B?F|I?Q)\d+\w*", models)) == set(LAYOUTS)
