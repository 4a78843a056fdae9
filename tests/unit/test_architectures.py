"""Every architecture gives the logits that other programs gave, and those of its definition in plain NumPy."""

import contextlib
import hashlib
from dataclasses import replace

import architectures
import kernel_runs
import numpy as np
import pytest
import tiny_gguf
from architectures import MODELS, VOCAB

from nbllm.errors import ModelFileError
from nbllm.formats.open import open_model
from nbllm.runtime.cache import Sequence
from nbllm.runtime.engine import Engine
from nbllm.runtime.estimate import shape
from nbllm.runtime.models import ARCHITECTURES

EXACT = 1e-4  # what float32 arithmetic may differ by; the logits' standard deviation is about 3
GELU_TABLE = 0.01  # the recorded logits of models with GELU: llama.cpp looks it up in half precision
HALF_CACHE = 0.05  # with keys and values in half precision

STAGES = {name: options for name, (options, _) in kernel_runs.RUNS.items() if isinstance(options, architectures.Model)}
IDS = np.random.default_rng(1).integers(0, VOCAB, 200).tolist()


@pytest.fixture(scope="module", params=MODELS)
def written(request, tmp_path_factory):
    """The name of a model, and its path."""
    path = tmp_path_factory.mktemp("architectures") / "model.gguf"
    return request.param, architectures.write(MODELS[request.param], path)


def logits(path, ids, cache_bits):
    with open_model(path) as gguf:
        return Engine(gguf, threads=1, cache_bits=cache_bits).logits(ids)


def test_there_is_a_model_of_every_architecture():
    assert {model.arch for model in MODELS.values()} | {"gptj"} == set(ARCHITECTURES)  # models_2023 has GPT-J's


def test_the_files_are_those_whose_logits_were_recorded(written):
    name, path = written
    assert hashlib.sha256(path.read_bytes()).hexdigest() == architectures.digest(name)


def test_the_definition_gives_the_recorded_logits(written):
    ids, expected = architectures.recorded(written[0])
    model = MODELS[written[0]]
    got = architectures.logits(model, ids)[1::2]
    assert np.abs(got - expected).max() < (GELU_TABLE if model.gelu else EXACT)


def test_logits_are_those_of_the_definition(written):
    name, path = written
    ids, recorded = architectures.recorded(name)
    expected = architectures.logits(MODELS[name], ids)
    got = logits(path, ids, 32)
    assert np.abs(got - expected).max() < EXACT
    assert np.abs(got[1::2] - recorded).max() < (GELU_TABLE if MODELS[name].gelu else EXACT)
    assert np.abs(logits(path, ids, 16) - expected).max() < HALF_CACHE


@pytest.mark.parametrize("name", ["llama-experts", "phi3", "gemma3", "stablelm-12b"])
def test_matrices_in_blocks_give_nearly_the_same(name, tmp_path):
    path = architectures.write(MODELS[name], tmp_path / "model.gguf", "Q8_0")
    expected = architectures.logits(MODELS[name], IDS[:20])
    got = logits(path, IDS[:20], 16)
    assert np.mean((got - expected) ** 2) < 0.003 * np.var(expected)


@pytest.mark.parametrize("name", STAGES)
def test_more_tokens_than_a_page_has_give_the_logits_of_the_definition(name, tmp_path):
    path = architectures.write(STAGES[name], tmp_path / "model.gguf")
    assert np.abs(logits(path, IDS, 32) - architectures.logits(STAGES[name], IDS)).max() < EXACT


def test_sequences_in_one_step_get_the_bits_that_they_get_alone(tmp_path):
    path = architectures.write(STAGES["qwen2moe"], tmp_path / "model.gguf")
    with open_model(path) as gguf:
        engine = Engine(gguf, threads=2, room=1024)
        alone = [
            engine.step([(Sequence(), IDS[start : start + 9], 9)], engine._stop)[0].copy() for start in (0, 50, 100)
        ]
        parts = [(Sequence(), IDS[start : start + 9], 9) for start in (0, 50, 100)]
        together = engine.step(parts, engine._stop)[0]
    assert np.array_equal(together, np.concatenate(alone))


def test_short_factors_of_rope_are_for_contexts_that_are_no_longer_than_the_original(tmp_path):
    model = MODELS["phi3-long"]
    with open_model(architectures.write(model, tmp_path / "model.gguf")) as gguf:
        short, long = (Engine(gguf, context=n).logits(IDS[:20]) for n in (model.original, model.original + 1))
        del gguf.tensors["rope_factors_long.weight"], gguf.tensors["rope_factors_short.weight"]
        none = Engine(gguf, context=model.original).logits(IDS[:20])
    assert not np.allclose(short, long, atol=0.1) and not np.allclose(short, none, atol=0.1)


def test_where_no_layer_has_a_window_all_have_the_rope_of_those_without(tmp_path):
    model = MODELS["gemma3"]
    with open_model(architectures.write(model, tmp_path / "model.gguf")) as gguf:
        gguf.metadata["gemma3.attention.sliding_window_pattern"] = np.zeros(model.layers, bool)
        got = Engine(gguf, threads=1, cache_bits=32).logits(IDS[:20])
    assert np.abs(got - architectures.logits(replace(model, window=0), IDS[:20])).max() < EXACT


@pytest.fixture
def mixed(tmp_path):
    """Opens a llama whose first layer is dense, with so many activations within, and whose second has experts and one
    shared by all, of so many. The nets, but for the experts, may be filled up with zeros to another size."""
    files = contextlib.ExitStack()

    def mixed(hidden, shared, filled=0, width=32):
        own, tensors = tiny_gguf.llama("F32", width=width, heads=1, kv_heads=1, feed_forward=hidden, context=1024)
        tensors = {name: each for name, each in tensors.items() if "1.ffn_" not in name or "norm" in name}
        random = np.random.default_rng(0)

        def matrix(*shape):
            return random.standard_normal(shape).astype(np.float32) / np.sqrt(shape[-1]), "F32"

        tensors["blk.1.ffn_gate_inp.weight"] = matrix(2, width)
        tensors["blk.1.ffn_gate_inp_shexp.weight"] = matrix(width)
        for name, turned in (("gate", False), ("up", False), ("down", True)):
            tensors[f"blk.1.ffn_{name}_exps.weight"] = matrix(2, width, 32) if turned else matrix(2, 32, width)
            tensors[f"blk.1.ffn_{name}_shexp.weight"] = matrix(width, shared) if turned else matrix(shared, width)
            for net in (f"blk.0.ffn_{name}.weight", f"blk.1.ffn_{name}_shexp.weight"):
                more = max(0, filled - tensors[net][0].shape[turned])
                tensors[net] = np.pad(tensors[net][0], ((0, 0), (0, more)) if turned else ((0, more), (0, 0))), "F32"
        own |= {"llama.expert_count": 2, "llama.expert_used_count": 1, "llama.expert_feed_forward_length": 32}
        own |= {"llama.expert_shared_feed_forward_length": max(shared, filled)}
        own |= {"llama.feed_forward_length": max(hidden, filled)}
        path = tmp_path / f"{hidden}-{shared}-{filled}.gguf"
        path.write_bytes(tiny_gguf.gguf_bytes(own, tensors))
        return files.enter_context(open_model(path))

    with files:
        yield mixed


@pytest.mark.parametrize(("hidden", "shared"), [(96, 64), (64, 96)])
def test_nets_of_different_sizes_give_what_they_give_filled_up_to_the_same(mixed, hidden, shared):
    ids = [id % 300 for id in IDS]  # its vocabulary is smaller
    got, expected = (Engine(mixed(hidden, shared, filled), threads=2).logits(ids) for filled in (0, 96))
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("hidden", "shared"), [(8192, 64), (64, 8192)])
def test_the_estimate_counts_the_largest_net(mixed, monkeypatch, hidden, shared):
    monkeypatch.setenv("NBLLM_CACHE", "off")
    gguf = mixed(hidden, shared)
    taken = Engine(gguf, 1024, 1).memory["activations"]
    assert taken * 0.95 < shape(gguf.metadata).activations(1024) < taken * 1.15


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("rope.scaling.type", "su", "rope scaling 'su' is not computed; nbllm knows none, linear, yarn, longrope"),
        ("expert_used_count", 9, r"'llama.expert_used_count' is 9 \(at byte \d+\), outside of 1 to 4"),
        ("attention.layer_norm_rms_epsilon", "x", "not one number"),
    ],
)
def test_what_is_not_computed_is_refused(tmp_path, key, value, message):
    path = architectures.write(MODELS["llama-experts"], tmp_path / "model.gguf")
    with open_model(path) as gguf:
        gguf.metadata[f"llama.{key}"] = value
        with pytest.raises(ModelFileError, match=message):
            Engine(gguf)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("llama", "blk.1.ffn_norm.weight"), ("qwen2", "blk.2.attn_v.bias"), ("qwen3", "blk.0.attn_q_norm.weight"),
        ("gemma3", "blk.6.post_ffw_norm.weight"), ("stablelm-12b", "blk.3.attn_k_norm.weight"),
        ("qwen3moe", "blk.0.ffn_up_exps.weight"),
    ],
)  # fmt: skip
def test_a_file_without_a_tensor_that_it_should_have_is_refused(name, tensor, tmp_path):
    with open_model(architectures.write(MODELS[name], tmp_path / "model.gguf")) as gguf:
        del gguf.tensors[tensor]
        with pytest.raises(ModelFileError, match=f"tensor '{tensor}' is missing"):
            Engine(gguf)


def test_a_tensor_that_the_architecture_does_not_know_is_refused(tmp_path):
    with open_model(architectures.write(MODELS["llama"], tmp_path / "model.gguf")) as gguf:
        tensor = gguf.tensors["blk.0.attn_norm.weight"]
        gguf.tensors["blk.0.attn_sinks.weight"] = replace(tensor, name="blk.0.attn_sinks.weight")
        told = r"'blk.0.attn_sinks.weight' \(from byte \d+\), which nbllm does not compute with for 'llama'"
        with pytest.raises(ModelFileError, match=told):
            Engine(gguf)


@pytest.mark.parametrize("name", MODELS)
def test_the_estimate_of_memory_is_about_what_the_engine_takes(name, tmp_path, monkeypatch):
    monkeypatch.setenv("NBLLM_CACHE", "off")
    context = MODELS[name].context
    with open_model(architectures.write(MODELS[name], tmp_path / "model.gguf")) as gguf:
        expected, taken = shape(gguf.metadata), Engine(gguf, context, 1).memory
    assert expected.cache(context) == taken["cache"]
    # In so small a model the table of stages counts, which the estimate leaves out.
    assert taken["activations"] * 0.85 < expected.activations(context) < taken["activations"] * 1.3
