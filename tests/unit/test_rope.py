"""Rope's angles: computed as positions are reached, the same bits as all at once, and scalings that can be computed."""

import architectures
import numpy as np
import pytest
from architectures import MODELS
from tiny_gguf import write_llama

import nbllm
from nbllm.errors import ModelFileError, TooLargeError
from nbllm.formats.open import open_model
from nbllm.runtime.arrays import zeros
from nbllm.runtime.engine import Engine
from nbllm.runtime.models import architecture, rope
from nbllm.runtime.packed import Packer


@pytest.fixture(params=["llama", "llama-freqs", "llama-linear", "llama-yarn", "phi3", "phi3-long", "gemma3", "gpt2"])
def model(request, tmp_path):
    """What nbllm knows of a small model's file."""
    with open_model(architectures.write(MODELS[request.param], tmp_path / "model.gguf")) as gguf:
        return architecture(gguf.metadata)(gguf, Packer())


def at_once(context, turns):
    """float32 (context, tables, 2, pairs)"""
    tables = []
    for radians, magnitude in turns:
        angles = np.arange(context)[:, None] * radians  # (context, pairs) float64
        tables.append((magnitude * np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(np.float32))
    return np.stack(tables, axis=1)


@pytest.mark.parametrize("context", [1, 2, 32, 3000, 100_001])
def test_angles_have_the_same_bits_in_blocks_as_all_at_once(model, context):
    angles = model.angles(context)
    for positions in (1, 2, 3, 1025, context):
        reached = angles.reach(positions)
    expected = at_once(context, angles._turns)
    assert reached.dtype == expected.dtype and reached.shape == expected.shape
    np.testing.assert_array_equal(reached.view(np.uint32), expected.view(np.uint32))


def test_no_more_angles_are_computed_than_are_needed():
    angles = rope.Angles(1 << 24, [(np.ones(8), 1.0)])
    assert angles.reach(rope.BLOCK - 5).shape == (rope.BLOCK - 5, 1, 2, 8)
    assert angles.array[: rope.BLOCK, 0, 0].all() and not angles.array[rope.BLOCK : 3 * rope.BLOCK].any()


def test_logits_do_not_depend_on_how_many_angles_are_computed_together(tmp_path, monkeypatch):
    ids = np.random.default_rng(1).integers(0, architectures.VOCAB, 60).tolist()
    with open_model(architectures.write(MODELS["gemma3"], tmp_path / "model.gguf")) as gguf:
        expected = Engine(gguf, threads=1).logits(ids)
        monkeypatch.setattr(rope, "BLOCK", 7)
        engine = Engine(gguf, threads=1)
        np.testing.assert_array_equal(engine.logits(ids), expected)
        np.testing.assert_array_equal(engine.logits(ids[:20]), expected[:20])


def test_a_context_for_whose_angles_there_is_no_memory_is_one_line(tiny_model, monkeypatch):
    def limited(n, dtype):
        return zeros(1 << 60 if np.dtype(dtype) == np.float32 else n, dtype)

    monkeypatch.setattr(rope, "zeros", limited)
    with pytest.raises(TooLargeError, match="smaller context"):
        nbllm.load(tiny_model)


@pytest.mark.parametrize(("key", "value"), [
    ("scaling.yarn_beta_fast", 0.0), ("scaling.yarn_beta_slow", 0.0), ("scaling.factor", np.float64(5e-324)),
    ("scaling.factor", np.float64(1e-9)), ("freq_base", 1.0),
])  # fmt: skip
def test_a_scaling_that_gives_no_numbers_is_refused(key, value, tmp_path):
    own = {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 2.0, f"llama.rope.{key}": value}
    with pytest.raises(ModelFileError, match=rf"'llama.rope.{key}' is {value} \(at byte \d+\), outside of"):
        nbllm.load(write_llama(tmp_path / "m.gguf", metadata=own))


@pytest.mark.parametrize("scaling", rope.SCALINGS)
def test_a_factor_of_0_is_none(scaling, tmp_path):
    own = {"llama.rope.scaling.type": scaling}
    plain, zero = (
        nbllm.load(write_llama(tmp_path / f"{i}.gguf", metadata=own | more)).logits([1, 2, 3])
        for i, more in enumerate(({}, {"llama.rope.scaling.factor": 0.0}))
    )
    np.testing.assert_array_equal(plain, zero)
