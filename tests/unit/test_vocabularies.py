"""The ids that llama.cpp gives: its own test vectors, and recorded strings, for every kind of tokenizer.

tests/check_tokens.py compares with llama.cpp itself, on more strings and on vocabularies that may not be shipped.
"""

import json
import lzma
from pathlib import Path

import pytest
import vocabularies

from nbllm.formats.open import open_model
from nbllm.tokenizers import load_tokenizer, spm

RECORDED = json.loads(lzma.decompress((Path(__file__).parents[1] / "data" / "tokens.json.xz").read_bytes()))
TWINS = {"mpt": ("gpt-neox", "mpt"), "qwen35": ("qwen2", "qwen35")}  # the same vocabulary, cut otherwise


def vocabulary(name):
    """The tokenizer that was recorded under this name."""
    base, _, pre = name.partition(" as ")
    base, pre = TWINS.get(base, (base, pre))
    return load_tokenizer(vocabularies.read(base, **({"pre": pre} if pre else {})))


def different(tokenizer, cases):
    return [(text, ids, found) for text, ids in cases if (found := tokenizer.encode(text)) != ids]


@pytest.mark.parametrize("name", RECORDED["vectors"])
def test_llama_cpp_vectors(name):
    assert len(RECORDED["vectors"][name]) == {"gpt-neox": 0, "qwen35": 51}.get(name, 47)
    assert different(vocabulary(name), RECORDED["vectors"][name]) == []


@pytest.mark.parametrize("name", [name for name in RECORDED["ids"] if name != "SmolLM2"])
def test_recorded_ids_of_500_varied_strings(name):
    ids = RECORDED["ids"][name]
    assert len(ids) == 500
    assert different(vocabulary(name), zip(RECORDED["strings"], ids)) == []


def test_long_texts_have_the_ids_of_short_ones(monkeypatch):
    monkeypatch.setattr(spm, "SHORT", 0)
    assert different(vocabulary("phi-3"), zip(RECORDED["strings"], RECORDED["ids"]["phi-3"])) == []


def test_recorded_ids_of_2000_varied_strings_with_the_default_model(default_model):
    ids = RECORDED["ids"]["SmolLM2"]
    assert len(ids) == 2000
    with open_model(default_model) as file:
        assert different(load_tokenizer(file.metadata), zip(RECORDED["strings"], ids)) == []


@pytest.mark.parametrize("name", ["gpt-2", "phi-3", "qwen2"])
def test_text_round_trips(name):
    tokenizer = vocabulary(name)
    for text in RECORDED["strings"]:
        if name == "phi-3" and ("▁" in text or any(tokenizer.tokens[id] in text for id in tokenizer.special_ids)):
            continue  # the one is a space, the others take the spaces after them
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_gpt_j_s_merges_are_recovered_from_the_order_of_its_tokens():
    """A file of 2023 has the tokens' bytes as they are, and nothing else: the ids are those of GPT-2 all the same."""
    gpt2 = vocabulary("gpt-2")
    raw = [gpt2.token_bytes(id).decode("utf-8", "surrogateescape") for id in range(gpt2.vocab_size)]
    raw += [f"<|extratoken_{n}|>" for n in range(1, 144)]
    gptj = load_tokenizer({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": raw})
    assert different(gptj, zip(RECORDED["strings"], RECORDED["ids"]["gpt-2"])) == []
    assert gptj.encode("a<|extratoken_3|>b<|endoftext|>") == [64, 50259, 65, 50256]
    assert gptj.end_ids == {50256} and gptj.add_bos is False
    assert gptj.decode(gptj.encode("Grüße 🦀")) == "Grüße 🦀"


def test_a_gguf_file_of_gpt_j_has_its_merges_and_raw_tokens():
    metadata = vocabularies.read("gpt-2")
    gpt2 = load_tokenizer(metadata)
    raw = [gpt2.token_bytes(id).decode("utf-8", "surrogateescape") for id in range(gpt2.vocab_size)]
    kept = {key: metadata[f"tokenizer.ggml.{key}"] for key in ("model", "merges")}
    gptj = load_tokenizer({f"tokenizer.ggml.{key}": value for key, value in (kept | {"tokens": raw}).items()})
    assert different(gptj, list(zip(RECORDED["strings"], RECORDED["ids"]["gpt-2"]))[:100]) == []
