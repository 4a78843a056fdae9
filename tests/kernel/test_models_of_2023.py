"""Every kind of model file of 2023 answers in a notebook: its container, architecture and block types."""

import models_of_2023
import pytest


@pytest.mark.parametrize("kind", ["ggml", "ggmf1", "ggjt1", "ggjt2", "ggjt3", "gguf1", "gguf2", "split"])
def test_files_of_a_kind_answer_a_cell(kind, shared_kernel, tmp_path):
    names = [name for name in models_of_2023.MODELS if name.startswith(f"llama-{kind}-")]
    assert names
    for name in names:
        path = models_of_2023.write(name, tmp_path)
        assert shared_kernel.run(f"%chat model {path}\n%chat new").reply["status"] == "ok"
        cell = shared_kernel.run("%%chat --max-tokens 4 -t 0\nhi")
        assert cell.reply["status"] == "ok", name
        assert cell.made["state"] == "done" and 0 < cell.made["generated_tokens"] <= 4, name
