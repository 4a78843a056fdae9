"""On real text the default model's logits are as close to the file's own weights as llama.cpp's are."""

import hashlib
import json

import divergence
import numpy as np
import pytest

import nbllm

RECORDED = json.loads((divergence.TEXT.parent / "fidelity.json").read_text("utf-8"))


@pytest.mark.timeout(400)  # about 40 s on two free cores, mostly the reference's matrix products
def test_divergence_from_the_float32_reference_is_at_most_a_tenth_above_that_of_llama_cpp(default_model):
    assert hashlib.sha256(default_model.read_bytes()).hexdigest() == RECORDED["model_sha256"]
    chunk = RECORDED["chunk"]
    ids = divergence.token_ids(default_model, divergence.TEXT.parent / RECORDED["text"])
    with nbllm.load(default_model, context=chunk + 1) as model:
        figures = divergence.measure(default_model, ids, model.logits, chunk)
    assert figures["positions"] == RECORDED["llama.cpp"]["positions"] == divergence.POSITIONS
    assert figures["mean"] <= 1.1 * RECORDED["llama.cpp"]["mean"], figures


def test_the_reference_does_not_diverge_from_itself(tiny_model):
    reference = divergence.Reference(tiny_model)
    figures = divergence.measure(tiny_model, [3, 200, 17, 99] * 8, reference.logits, chunk=16)
    assert figures["positions"] == 32 and figures["same_top"] == 1
    assert figures["max"] < 1e-9


@pytest.mark.parametrize("noise", [0.01, 0.1])
def test_a_disturbed_engine_is_noticed(tiny_model, noise):
    reference, random = divergence.Reference(tiny_model), np.random.default_rng(0)

    def disturbed(ids):
        logits = reference.logits(ids)
        return logits + random.normal(0, noise, logits.shape).astype(np.float32)

    assert divergence.measure(tiny_model, [3, 200, 17, 99] * 8, disturbed, chunk=16)["mean"] > noise**2 / 100
