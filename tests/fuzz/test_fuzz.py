"""Damaged model files never do worse than a refusal in one line: no signal, no hang, no runaway memory,
no silent accept.

`make fuzz` tries many more. Where each check is, and what holds it:

| what is checked | where | test |
|---|---|---|
| first bytes, version, byte order, size | formats/open.py, gguf.py, ggjt.py, file.py | test_gguf, test_old_files |
| numbers of tensors and keys, by what the file has room for | `Cursor.count`, `ggml.vocabulary` | the same |
| length of a text, key or name; UTF-8; not empty | `Cursor.raw`, `Cursor.text` | the same |
| value types; arrays: element type, size; none of arrays | `gguf._Cursor.value` | test_gguf |
| a key, or a tensor, that is there twice | `gguf._part`, `gguf._tensors`, `ggml.records` | test_gguf, test_old_files |
| alignment: u32, a power of two, at most 1 MiB | `gguf._alignment` | test_gguf |
| dimensions 1 to 4, none 0; rows of whole, known blocks | `gguf._tensor`, `ggml.records` | test_gguf, test_old_files |
| offsets follow each other; all bytes within the file | `gguf._tensors`, `ggml.records` | test_gguf, test_old_files |
| parts belong together | `gguf.read_gguf`, `ggml.joined` | test_gguf, test_old_files |
| hyper-parameters: there, in bounds | `models.base.Source.number`, `ggml.header` | here, test_hyper_parameters |
| every tensor there, in its shape, and none besides | `models.base.Source.tensor`, `refuse_others` | here |
| heads divide, rope fits in a head | `models.decoder.Decoder._heads` | here |
| as many tokens as rows; special ids, types, scores | tokenizers/base.py, spm.py, decoder.py | here, test_tokenizer |
| rope's factors are finite and above 0 | models/rope.py | here, FOUND |
| scales of before GGUF are finite | `eras.Era.modern` | test_old_files |
| logits are finite, whatever the weights | runtime/sampling.py | here |
| the file is cut, replaced or deleted meanwhile | `file.File.read`, which never maps | test_changing_files |
| memory, before it is taken | runtime/estimate.py | here: RLIMIT_AS |
"""

import random
import re
from collections import Counter

import numpy as np
import pytest
import tiny_gguf
from fuzz.damage import AIMED, BLIND, case, fields
from fuzz.outcome import model, outcome
from fuzz.run import run
from fuzz.seeds import names, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

import nbllm
from nbllm.errors import ModelFileError, NbLLMError
from nbllm.formats.open import open_model

FOUND = (62704, 94222)  # numbers of cases that something was wrong with once


def test_damaged_files_never_do_worse_than_a_refusal(tmp_path):
    numbers = [*FOUND, *range(2000)]
    counts, findings = run(numbers, tmp_path)
    assert findings == []
    assert counts["ran"] + counts["refused"] == len(numbers)
    assert min(counts.values()) > 100  # both happen, so the test reaches both sides


@pytest.mark.parametrize("name", seeds())
def test_what_is_damaged_runs_before(tmp_path, name):
    for path, raw in zip(names(name), seeds()[name], strict=True):
        (tmp_path / path).write_bytes(raw)
    with nbllm.load(tmp_path / names(name)[0], threads=1, progress=lambda done, total: None) as model:
        assert np.isfinite(model.logits([0, 1, 2, 3])).all()


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.data())
def test_any_damages_one_after_the_other_are_one_line_at_most(tmp_path_factory, data):
    """With Hypothesis, which makes the least of what it finds."""
    name = data.draw(st.sampled_from(sorted(seeds())))
    parts = [bytearray(raw) for raw in seeds()[name]]
    for damage in data.draw(st.lists(st.sampled_from(BLIND), max_size=3)):
        damage(random.Random(data.draw(st.integers(0, 10**6))), parts[0], None)
    aimed = data.draw(st.sampled_from(AIMED))
    if parts[0] == seeds()[name][0]:
        aimed(random.Random(data.draw(st.integers(0, 10**6))), parts[0], fields(bytes(parts[0])))
    folder = tmp_path_factory.mktemp("any")
    for path, raw in zip(names(name), parts, strict=True):
        (folder / path).write_bytes(raw)
    try:
        with open_model(folder / names(name)[0]) as file:
            for tensor in file.tensors.values():
                assert tensor.read(0, 1).size == 1
    except ModelFileError as error:
        assert "\n" not in str(error) and 20 < len(str(error)) < 1200


def test_a_case_is_made_again_from_its_number():
    assert all(case(number).parts == case(number).parts for number in range(50))
    assert len({case(number).seed for number in range(400)}) == len(seeds())


WRONG_KINDS = {"nan": float("nan"), "infinite": float("inf"), "text": "2", "none": np.array([], np.int32),
               "two": np.array([1, 2], np.int32), "texts": ["a"], "true": True, "huge": np.uint64(2**63)}  # fmt: skip
KEYS = [key for key in tiny_gguf.llama()[0] if key.startswith("llama.")] + [
    "llama.rope.scaling.type",
    "general.architecture",
]


@pytest.mark.parametrize("value", WRONG_KINDS.values(), ids=WRONG_KINDS)
def test_hyper_parameters_of_a_wrong_kind_are_refused_by_their_name(tmp_path, value):
    metadata, tensors = tiny_gguf.llama(layers=1)
    for key in KEYS:
        path = tmp_path / "m.gguf"
        path.write_bytes(tiny_gguf.gguf_bytes(metadata | {key: value}, tensors))
        with pytest.raises(NbLLMError) as caught:
            nbllm.load(path, threads=1)
        told = "architecture" if key == "general.architecture" else "scaling" if "scaling" in key else key
        assert told in str(caught.value) and "\n" not in str(caught.value), key
        at = path.read_bytes().find(key.encode()) + len(key) + 4  # behind the type
        assert f" (at byte {at})" in str(caught.value), key


@pytest.mark.parametrize(("key", "value", "told"), [
    ("tokenizer.ggml.model", "abacus", "'abacus'"),
    ("tokenizer.ggml.pre", "guesses", "'guesses'"),
    ("tokenizer.ggml.tokens", [], "is empty"),
    ("llama.attention.head_count_kv", 3, "heads of 4"),
])  # fmt: skip
def test_values_that_do_not_fit_are_refused_with_their_byte(tmp_path, key, value, told):
    metadata, tensors = tiny_gguf.llama(layers=1)
    path = tmp_path / "m.gguf"
    path.write_bytes(tiny_gguf.gguf_bytes(metadata | {key: value}, tensors))
    with pytest.raises(ModelFileError) as caught:
        nbllm.load(path, threads=1)
    if "heads" in told:
        key = "llama.attention.head_count"  # which stands for all of them
    at = path.read_bytes().find(key.encode()) + len(key) + 4
    assert told in str(caught.value) and f" (at byte {at})" in str(caught.value)


@pytest.mark.parametrize("tokenizer", ["gpt2", "llama", "bert", "gemma4"])
def test_a_value_of_a_wrong_kind_is_at_most_refused_whatever_its_key(tmp_path, tokenizer):
    metadata, tensors = tiny_gguf.llama(layers=1)
    scores = np.arange(len(metadata["tokenizer.ggml.tokens"]), dtype=np.float32)
    metadata |= {"tokenizer.ggml.model": tokenizer, "tokenizer.ggml.scores": scores, "general.size_label": "1B"}
    more = ("add_space_prefix", "remove_extra_whitespaces", "eot_token_id", "padding_token_id")
    counts, path = Counter(), tmp_path / "m.gguf"
    for key in (*metadata, *(f"tokenizer.ggml.{name}" for name in more)):
        for kind, value in WRONG_KINDS.items():
            path.write_bytes(tiny_gguf.gguf_bytes(metadata | {key: value}, tensors))
            told = outcome(model, path)
            assert not told.startswith("wrong"), (key, kind, told)
            counts[told.split(":")[0]] += 1
    assert min(counts["ran"], counts["refused"]) > 20


ALL_ONES = [(name, field) for name in ("gguf1", "gguf2", "gguf3", "Q4_1") for field in fields(seeds()[name][0])[0]
            if field.kind is None and field.what not in ("shape", "length of a string")]  # fmt: skip


def refusal(path, raw):
    path.write_bytes(raw)
    with pytest.raises(ModelFileError) as caught:
        open_model(path)
    return str(caught.value)


def test_a_field_that_is_wrong_is_named_with_its_value_and_the_byte_where_it_is(tmp_path):
    assert len(ALL_ONES) > 400
    for name, field in ALL_ONES:
        raw = bytearray(seeds()[name][0])
        raw[field.at : field.at + field.width] = b"\xff" * field.width
        told, value = refusal(tmp_path / "m.gguf", raw), 256**field.width - 1
        assert f" {value}" in told and f" (at byte {field.at}): " in told, (name, field, told)


def test_every_refusal_of_a_container_says_at_which_byte(tmp_path):
    """But for those of a file as a whole."""
    whole, told = ("is not a model file but", "fewer than the 24", "is not beside it"), []
    for number in range(1500):
        damaged = case(number)
        for name, raw in zip(names(damaged.seed), damaged.parts, strict=True):
            (tmp_path / name).write_bytes(raw)
        try:
            with open_model(tmp_path / names(damaged.seed)[0]):
                pass
        except ModelFileError as error:
            told.append(str(error))
    assert len(told) > 500
    told = [line for line in told if not any(map(line.count, whole))]
    assert [line for line in told if not re.search(r" \(at byte \d+\): ", line)] == []
