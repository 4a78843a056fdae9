"""Every kind of model file of 2023 answers in a notebook: its container, architecture and block types."""

from dataclasses import replace

import models_of_2023
import pytest

KINDS = (
    "llama-ggml", "llama-ggmf1", "llama-ggjt1", "llama-ggjt2", "llama-ggjt3", "llama-gguf1", "llama-gguf2",
    "llama-split", "gptj-q0", "gptj-q1", "gptj-q2", "gptj-gguf3",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_a_kind_answer_a_cell(kind, shared_kernel, tmp_path, monkeypatch):
    names = [name for name in models_of_2023.MODELS if name.startswith(f"{kind}-")]
    assert names
    for name in names:
        model = models_of_2023.MODELS[name]
        if model.gptj:  # whose recorded context has no room for a question in single bytes
            monkeypatch.setitem(models_of_2023.MODELS, name, replace(model, sizes=model.sizes | {"context": 512}))
        path = models_of_2023.write(name, tmp_path)
        assert shared_kernel.run(f"%chat model {path}\n%chat new").reply["status"] == "ok"
        cell = shared_kernel.run("%%chat --max-tokens 4 -t 0\nhi")
        assert cell.reply["status"] == "ok", (name, cell.error)
        assert cell.made["state"] == "done" and 0 < cell.made["generated_tokens"] <= 4, name
