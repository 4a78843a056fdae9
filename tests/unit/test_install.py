"""The installer of the kernelspec: where it goes, and which Python it names."""

import json
import sys

import pytest

from nbllm.errors import ModelNotFoundError, NbLLMError, OptionError
from nbllm.jupyter.install import install


def test_goes_under_the_prefix_and_names_this_python(tmp_path):
    folder = install(prefix=tmp_path)
    assert folder == tmp_path / "share" / "jupyter" / "kernels" / "nbllm"
    spec = json.loads((folder / "kernel.json").read_text())
    assert spec["argv"] == [sys.executable, "-m", "nbllm.jupyter.local_llm_kernel", "-f", "{connection_file}"]
    assert (spec["display_name"], spec["interrupt_mode"]) == ("Local LLM", "message")
    assert {file.name for file in folder.iterdir()} >= {"logo-32x32.png", "logo-64x64.png", "logo-svg.svg"}


def test_goes_to_the_users_folder_by_default_and_takes_another_name(tmp_path, monkeypatch):
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path))
    folder = install(name="big", display_name="Big model")
    assert folder == tmp_path / "kernels" / "big"
    assert json.loads((folder / "kernel.json").read_text())["display_name"] == "Big model"


def test_refuses_two_places_and_bad_names(tmp_path):
    with pytest.raises(OptionError, match="one of --user, --sys-prefix and --prefix"):
        install(user=True, prefix=tmp_path)
    with pytest.raises(OptionError, match="not/a/name"):
        install(prefix=tmp_path, name="not/a/name")


def test_says_where_it_cannot_write(tmp_path):
    (tmp_path / "share").write_text("a file in the way")
    with pytest.raises(NbLLMError, match="cannot be written"):
        install(prefix=tmp_path)


def test_a_kernel_of_its_own_for_a_model(tmp_path, tiny_model):
    folder = install(prefix=tmp_path, model=tiny_model)
    spec = json.loads((folder / "kernel.json").read_text())
    assert folder.name == "nbllm-tiny" and spec["display_name"] == "Local LLM: tiny"
    assert spec["argv"][-1] == f"--NbLLM.model={tiny_model}"
    named = install(prefix=tmp_path, model=tiny_model, name="big", display_name="Big model")
    assert named.name == "big" and json.loads((named / "kernel.json").read_text())["display_name"] == "Big model"
    with pytest.raises(ModelNotFoundError, match="no-such-model"):
        install(prefix=tmp_path, model="no-such-model")
