"""Models of 2023, whatever container they are in: the weights are those that were written, and the logits those that
other programs gave."""

import hashlib
from functools import cache

import models_of_2023
import numpy as np
import pytest
from encoders import encode
from models_of_2023 import DIGESTS, GPTJ, MODELS, NARROW

from nbllm.errors import ModelFileError
from nbllm.formats.blocks import dequantize
from nbllm.formats.open import open_model
from nbllm.runtime import packed_cache
from nbllm.runtime.engine import Engine
from nbllm.runtime.models import ARCHITECTURES
from nbllm.runtime.weights import load_weights

RUN = [name for name in DIGESTS if ("gptj" if MODELS[name].gptj else "llama") in ARCHITECTURES]

# What the logits, of standard deviation 3, may differ by: the programs of 2023 kept F16 tables and caches and quantised
# activations, which 32 layers make more of than one or two.
TOLERANCE = {("gguf", "F32"): 0.01, ("gguf", "F16"): 0.02, ("old", "F32"): 0.02, ("old", "F16"): 0.02}
QUANTISED = {"gguf": 0.3, "old": 0.6}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Name -> the path of the model's first file."""
    folder = tmp_path_factory.mktemp("models_of_2023")
    return cache(lambda name: models_of_2023.write(name, folder))


@pytest.mark.parametrize("name", DIGESTS)
def test_the_files_are_those_whose_logits_were_recorded(written, name):
    assert hashlib.sha256(written(name).read_bytes()).hexdigest() == DIGESTS[name]


@pytest.mark.parametrize("name", MODELS)
def test_tensors_are_the_weights_in_the_layout_of_today(written, name):
    model = MODELS[name]
    with open_model(written(name)) as file:
        assert list(file.tensors) == list(models_of_2023.weights(model))
        for name, array in models_of_2023.weights(model).items():
            tensor, kind = file.tensors[name], model.kind_of(name, array)
            expected = encode(array, kind, 1 if kind in ("Q4_2", "Q4_3") else 3)  # these two were never changed
            assert (tensor.name, tensor.shape, tensor.block_type.name) == (name, array.shape, kind)
            assert tensor.nbytes == len(expected) and tensor.data.tobytes() == tensor.read().tobytes() == expected
            assert tensor.data.shape[:-1] == array.shape[:-1] and not tensor.data.flags.writeable


@pytest.mark.parametrize("era", [1, 2])
@pytest.mark.parametrize(("kind", "fields"), [("Q4_0", 1), ("Q4_1", 2), ("Q8_0", 1)])
def test_only_the_scales_of_early_blocks_are_rounded_and_only_to_half_precision(written, era, kind, fields):
    name = f"gptj-q{era - 1}-{kind}"
    with open_model(written(name)) as file:
        for name, array in models_of_2023.weights(MODELS[name]).items():
            if array.ndim == 2:
                tensor, stored = file.tensors[name], encode(array, kind, era)
                blocks = np.frombuffer(stored, np.uint8).reshape(array.size // 32, -1)
                scales = blocks[:, : 4 * fields].copy().view("<f4")  # (blocks, fields)
                ours = tensor.read().reshape(len(blocks), -1)[:, : 2 * fields].copy().view("<f2")
                assert np.abs(ours - scales).max() <= np.abs(scales).max() * 2.0**-11
                values = dequantize(tensor.block_type, tensor.data)
                assert np.abs(values - array).max() < np.abs(array).max() / (2 if kind != "Q8_0" else 100)


@pytest.mark.parametrize("name", ["llama-ggmf1-2part-Q4_0", "llama-ggjt1-mixed-Q4_0", "llama-split-00001-of-00002"])
def test_any_stretch_of_a_tensor_can_be_read(written, name):
    draw = np.random.default_rng(0)
    with open_model(written(name)) as file:
        for tensor in list(file.tensors.values())[:20]:
            whole = tensor.read()
            for start, stop in np.sort(draw.integers(0, tensor.nbytes + 1, (20, 2))).tolist():
                np.testing.assert_array_equal(tensor.read(start, stop), whole[start:stop])


@pytest.mark.parametrize("name", ["llama-ggmf1-2part-Q4_0", "llama-split-00001-of-00002"])
def test_the_parts_are_read_as_one_file(written, name):
    path = written(name)
    both = b"".join(part.read_bytes() for part in sorted(path.parent.glob(f"{name.replace('00001', '*')}*")))
    with open_model(path) as file:
        assert file.size == len(both) and file.container.endswith("2 parts") and file.path == path
        for start, stop in ((0, 4), (0, len(both)), (path.stat().st_size - 3, path.stat().st_size + 3), (9, 9)):
            assert file.read(start, stop).tobytes() == both[start:stop]
        with pytest.raises(ModelFileError, match="cut short"):
            file.read(0, len(both) + 1)


@pytest.mark.parametrize("name", RUN)
def test_logits_are_those_that_were_recorded(written, name):
    ids, expected = models_of_2023.recorded(name)
    family = "gguf" if MODELS[name].container == "gguf" else "old"
    with open_model(written(name)) as file:
        logits = Engine(file, threads=1).logits(ids)
    logits = logits if expected.ndim == 2 else logits[-1]
    assert np.abs(logits - expected).max() < TOLERANCE.get((family, MODELS[name].kind), QUANTISED[family])
    assert np.mean(logits.argmax(-1) == expected.argmax(-1)) >= 0.75


def test_the_model_whose_last_token_is_missing_has_that_of_the_others(written):
    with open_model(written("llama-ggml-gpt4all-Q4_0")) as file:
        assert file.metadata["tokenizer.ggml.tokens"][-1] == "<pad>"
        assert len(file.metadata["tokenizer.ggml.tokens"]) == file.tensors["output.weight"].shape[0] == 321
        assert Engine(file, threads=1).logits([1, 50, 320]).shape == (3, 321)


@pytest.mark.parametrize("name", ["llama-ggml-F16", "llama-ggmf1-F16", "llama-ggjt1-F16", "llama-ggjt3-F16"])
def test_metadata_of_llama_is_that_of_its_gguf_files(written, name):
    texts, types = models_of_2023.gguf_tokens(NARROW["vocab"])
    scored = "ggml" not in name
    scores = [score if scored else 0 for _, score in models_of_2023.llama_vocabulary(NARROW["vocab"])]
    with open_model(written(name)) as file:
        arrays = {key: file.metadata.pop(f"tokenizer.ggml.{key}") for key in ("scores", "token_type")}
        assert file.metadata == {
            "general.architecture": "llama",
            "general.file_type": 1,
            "llama.context_length": 2048,
            "llama.embedding_length": 32,
            "llama.block_count": 32,
            "llama.feed_forward_length": 96,
            "llama.attention.head_count": 2,
            "llama.attention.head_count_kv": 2,
            "llama.attention.layer_norm_rms_epsilon": 1e-6,
            "llama.rope.dimension_count": 16,
            "llama.rope.freq_base": 10000.0,
            "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": texts,
            "tokenizer.ggml.unknown_token_id": 0,
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.add_bos_token": True,
            "tokenizer.ggml.add_space_prefix": True,
        }
        np.testing.assert_array_equal(arrays["scores"], np.array(scores, np.float32), strict=True)
        np.testing.assert_array_equal(arrays["token_type"], types, strict=True)


def test_metadata_of_gptj_is_that_of_its_gguf_files(written):
    with open_model(written("gptj-q2-Q4_0")) as file, open_model(written("gptj-gguf3-Q4_0")) as modern:
        only_there = {"general.name", "general.quantization_version", "tokenizer.ggml.merges"}
        only_there |= {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"}
        expected = {key: value for key, value in modern.metadata.items() if key not in only_there}
        assert file.metadata.pop("gptj.feed_forward_length") == GPTJ["feed_forward"]
        assert file.metadata.pop("gptj.attention.layer_norm_epsilon") == 1e-5
        assert expected.pop("gptj.attention.layer_norm_epsilon") == np.float32(1e-5)
        assert file.metadata == expected
        assert {name: tensor.shape for name, tensor in file.tensors.items()} == {
            name: tensor.shape for name, tensor in modern.tensors.items()
        }


@pytest.mark.parametrize(
    ("name", "later"),
    [
        ("llama-ggmf1-2part-Q4_0", "llama-ggmf1-2part-Q4_0.bin.1"),
        ("llama-split-00001-of-00002", "llama-split-00002-of-00002.gguf"),
    ],
)
def test_packed_weights_are_found_again_unless_a_later_part_has_changed(tmp_path, monkeypatch, name, later):
    monkeypatch.setenv("NBLLM_CACHE", str(tmp_path / "packed"))
    path = models_of_2023.write(name, tmp_path)
    later = tmp_path / later
    def packed():
        with open_model(path) as file:
            return load_weights(file).path

    first = packed()
    assert packed() == first and len(packed_cache.entries(tmp_path / "packed")) == 1
    raw = bytearray(later.read_bytes())
    raw[raw.rindex(b"w2.weight" if later.suffix == ".1" else b"ffn_down.weight") + 3000] ^= 1
    later.write_bytes(raw)
    assert packed() != first
