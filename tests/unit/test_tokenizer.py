"""Byte-level BPE round-trips text, streams the same text as it decodes, and no text makes it slow."""

import random
import time

import numpy as np
import pytest
import tiny_gguf
import vocabularies
from reference_merge import merge_slowly

from nbllm import tokenizers
from nbllm.errors import ModelFileError, OptionError, Stopped
from nbllm.formats.open import open_model
from nbllm.tokenizers import load_tokenizer
from nbllm.tokenizers.merge import merge
from nbllm.tokenizers.prefixes import Prefixes


@pytest.fixture(scope="module")
def gpt2():
    return load_tokenizer(vocabularies.read("gpt-2"))


@pytest.fixture(scope="module")
def smollm2(default_model):
    with open_model(default_model) as file:
        return load_tokenizer(file.metadata)


@pytest.fixture
def tiny():
    """Metadata of a small vocabulary, for a test to change."""
    return tiny_gguf.tokenizer_metadata()


def random_strings(seed):
    """10,000 strings of code points from all planes, mostly from where text is."""
    draw = random.Random(seed)
    ranges = [(0, 0x80), (0x80, 0x800), (0x800, 0xD800), (0xE000, 0x10000), (0x10000, 0x20000), (0x10000, 0x110000)]
    for _ in range(10_000):
        yield "".join(chr(draw.randrange(*draw.choice(ranges))) for _ in range(draw.randrange(20)))


def test_10000_random_strings_round_trip(gpt2):
    assert [text for text in random_strings(1) if gpt2.decode(gpt2.encode(text)) != text] == []


def test_what_the_default_vocabulary_cannot_spell_is_all_that_a_round_trip_loses(smollm2):
    absent = {byte for byte, char in enumerate(tiny_gguf.byte_spelling()) if char not in smollm2.ids}
    assert absent == {4, 6, 19, 20, 22, 29, 0xC0, 0xC1, 0xF1, 0xF2, *range(0xF5, 0x100)}  # control, unassigned, never
    for text in random_strings(2):
        kept = bytes(byte for byte in text.encode() if byte not in absent).decode("utf-8", "replace")
        assert smollm2.decode(smollm2.encode(text)) == kept


def test_streamed_text_equals_decoded_text_at_every_token(smollm2):
    draw = random.Random(3)
    for text in list(random_strings(4))[:200]:
        scrambled = [draw.randrange(smollm2.vocab_size) for _ in range(10)]  # characters cut short, bytes out of order
        for ids in (smollm2.encode(text), scrambled):
            stream, streamed = smollm2.stream(), ""
            for n, id in enumerate(ids, 1):
                streamed += stream.push(id)
                assert smollm2.decode(ids[:n]).rstrip("\ufffd") == streamed.rstrip("\ufffd")
            assert streamed + stream.finish() == smollm2.decode(ids)


def test_a_character_appears_with_its_last_token(gpt2):
    ids, stream = gpt2.encode("🦀"), gpt2.stream()
    assert len(ids) > 1
    assert [stream.push(id) for id in ids] == [""] * (len(ids) - 1) + ["🦀"]
    assert stream.finish() == ""


@pytest.mark.parametrize("long", [0, 10**6], ids=["heap", "list"])
def test_merging_is_that_of_the_definition(gpt2, monkeypatch, long):
    monkeypatch.setattr(tokenizers.merge, "LONG", long)
    draw, priority = random.Random(5), gpt2._rank
    for _ in range(1000):
        alphabet = draw.choice(["ab", "helo", "theaniro", "=-", "0123456789", "Ġ", "abcdefghijklmnopqrstuvwxyz"])
        symbols = [draw.choice(alphabet) for _ in range(draw.randrange(1, 40))]
        assert merge(list(symbols), priority) == merge_slowly(priority, symbols)


def test_a_long_word_is_cut_only_where_nothing_merges_across():
    """Words of many scripts, cut before they are merged and not: the same ids."""
    whole, pieces = (load_tokenizer(vocabularies.read("qwen2")) for _ in range(2))
    whole._word_ids = whole._merged
    draw = random.Random(6)
    scripts = ["的一是不了人我在有他这中大来上国", "のにはをたがでてとしれさアイウ", "가나다라마바사아", "абвгдеёжзийклм", "กขคงจฉชซ", "éàçôaei"]
    for _ in range(500):
        word = "".join(draw.choice(draw.choice(scripts)) for _ in range(draw.randrange(3, 20)))
        assert pieces._word_ids(word) == whole._word_ids(word)


@pytest.mark.parametrize("unit", ["a", "ab", " ", "\n", "字", "1"])
def test_one_word_of_any_length_takes_no_quadratic_time(smollm2, unit):
    text = unit * 60_000
    start = time.perf_counter()
    assert smollm2.decode(smollm2.encode(text)) == text
    assert time.perf_counter() - start < 20  # about half a second; quadratic would be an hour


def test_special_tokens_are_parsed_or_stay_text(smollm2):
    text = "<|im_start|>user\nhi<|im_end|>"
    ids, plain = smollm2.encode(text), smollm2.encode(text, special=False)
    assert (ids[0], ids[-1]) == (1, 2)
    assert not smollm2.special_ids & set(plain)
    assert smollm2.decode(ids) == smollm2.decode(plain) == text


def test_of_special_tokens_that_overlap_the_longest_wins(tiny):
    tokens = [*tiny["tokenizer.ggml.tokens"], "<a>", "<a><b>", "<b>"]
    types = np.concatenate([tiny["tokenizer.ggml.token_type"], np.array([3, 3, 3], np.int32)])
    tokenizer = load_tokenizer(tiny | {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types})
    a, ab, b = range(len(tokens) - 3, len(tokens))
    assert tokenizer.encode("<a><b><a><b><b><a>") == [ab, ab, b, a]


def with_literals(tiny, texts, type):
    """A tokenizer with these special (3) or user-defined (4) tokens, one type for all or one each."""
    tokens, types = tiny["tokenizer.ggml.tokens"], tiny["tokenizer.ggml.token_type"]
    more = np.broadcast_to(np.array(type, np.int32), len(texts))
    keys = {"tokenizer.ggml.tokens": [*tokens, *texts], "tokenizer.ggml.token_type": np.append(types, more)}
    return load_tokenizer(tiny | keys)


def literals_slowly(tokenizer, text, fenced):
    """The definition: of all that stand in the text, the longest first, then by id, then the leftmost."""
    found = []
    for id in sorted(tokenizer.special_ids | tokenizer.user_ids):
        for begin in range(len(text)):
            end = begin + len(tokenizer.tokens[id])
            whole = text.startswith(tokenizer.tokens[id], begin)
            if whole and (id in tokenizer.user_ids or not any(begin <= at < end for at in fenced)):
                found.append((-len(tokenizer.tokens[id].encode()), id, begin, end))
    cuts = []
    for _, id, begin, end in sorted(found):
        if all(end <= cut[0] or begin >= cut[1] for cut in cuts):
            cuts.append((begin, end, id))
    return sorted(cuts)


def test_special_and_user_defined_tokens_are_found_as_defined(tiny):
    draw = random.Random(7)
    for _ in range(300):
        texts = list({"".join(draw.choice("ab<é") for _ in range(draw.randrange(1, 6))) for _ in range(8)})
        tokenizer = with_literals(tiny, texts, [draw.choice([3, 4]) for _ in texts])
        text = "".join(draw.choice("ab<é") for _ in range(draw.randrange(30)))
        fenced = {at for at in range(len(text)) if draw.random() < 0.2}

        def reach(begin, end):
            return min([end, *(at for at in fenced if begin <= at)])

        cuts = tokenizer._literals_in(text, reach, lambda: None)
        assert cuts == literals_slowly(tokenizer, text, fenced)


def test_many_long_special_tokens_cost_no_more_than_a_few(tiny):
    """All pairs of them and their places would be 40 million."""
    texts = ["x" * n for n in range(1, 2001)]
    tokenizer = with_literals(tiny, texts, 3)
    longest = tokenizer.vocab_size - 1
    assert tokenizer.encode("x" * 20_003) == [longest] * 10 + [tokenizer._literals["xxx"]]


LONG_TEXTS = [
    "the moon orbits " * 3000, "a" * 9000, "的一是不了人我在有他这中大来上国" * 300, "<" * 9000, "\n" * 9000, "a\n" * 9000,
]  # fmt: skip


@pytest.mark.parametrize("text", LONG_TEXTS, ids=["words", "a word", "Chinese", "literals", "lines", "short lines"])
@pytest.mark.parametrize("name", ["gpt-2", "qwen2", "phi-3", "bert-bge"])
def test_whoever_looks_may_break_off_a_long_text(name, text):
    """So often that little is done in between, however the text is made."""
    tokenizer, looked = load_tokenizer(vocabularies.read(name)), []

    def look():
        looked.append(None)
        if len(looked) == 4:
            raise Stopped("Enough.")

    with pytest.raises(Stopped):
        tokenizer.encode(text, look=look)
    assert len(looked) == 4


def test_merging_and_the_search_for_tokens_look_until_they_end(gpt2):
    looked = []
    merge(["a", "b"] * 5120, gpt2._rank, lambda: looked.append(None))
    assert len(looked) >= 2 * 40  # once for every 256 symbols, and again for every 256 merges
    looked.clear()
    assert list(Prefixes(["<|a|>"]).places("<" * 10_240, lambda: looked.append(None))) == []
    assert len(looked) == 40


@pytest.mark.parametrize("name", ["gpt-2", "phi-3"])
def test_a_text_that_has_more_bytes_than_tokens_hold_is_known_by_its_length(name):
    tokenizer = load_tokenizer(vocabularies.read(name))
    longest = max(range(tokenizer.vocab_size), key=lambda id: len(tokenizer.token_bytes(id)))
    text = tokenizer.decode([longest], start=False)
    assert tokenizer.holds(text * 3, 3) and not tokenizer.holds(text * 3 + "a", 3)
    assert tokenizer.holds("é" * 10, 10)


def test_special_tokens_become_ids_where_they_may(tiny):
    text = "<|im_end|>a<|im_end|>"
    ids = load_tokenizer(tiny).encode(text, lambda begin, end: end if begin else begin)
    assert ids.count(2) == 1 and ids[-1] == 2
    assert load_tokenizer(tiny).decode(ids) == text


def test_many_special_tokens_in_a_long_text_take_no_quadratic_time():
    tokens = [*tiny_gguf.byte_spelling(), *(f"<unused{n}>" for n in range(5000))]
    types = np.array([1] * 256 + [3] * 5000, np.int32)
    metadata = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types, "tokenizer.ggml.merges": []}
    tokenizer = load_tokenizer({"tokenizer.ggml.model": "gpt2", **metadata})
    start = time.perf_counter()
    assert tokenizer.encode("".join(tokens[256:]) * 10) == list(range(256, 5256)) * 10
    assert time.perf_counter() - start < 20  # about a quarter of a second


def test_user_defined_tokens_are_parsed_even_where_special_ones_are_not(tiny):
    tokens = [*tiny["tokenizer.ggml.tokens"], "<tab>"]
    types = np.append(tiny["tokenizer.ggml.token_type"], np.int32(4))
    tokenizer = load_tokenizer(tiny | {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types})
    assert tokenizer.encode("<tab>", special=False) == [len(tokens) - 1]
    assert tokenizer.decode([len(tokens) - 1]) == "<tab>"
    assert len(tokens) - 1 not in tokenizer.special_ids


def test_ends_are_what_the_file_names_and_the_known_texts(tiny):
    assert load_tokenizer(tiny).end_ids == {0, 2}  # <|endoftext|> by its text, <|im_end|> by both
    assert load_tokenizer(tiny | {"tokenizer.ggml.eot_token_id": 5}).end_ids == {0, 2, 5}
    normal = np.ones_like(tiny["tokenizer.ggml.token_type"])
    tokenizer = load_tokenizer(tiny | {"tokenizer.ggml.token_type": normal})
    assert tokenizer.special_ids == tokenizer.end_ids == {0, 2}  # special although the file calls them normal


def test_ids_of_beginning_and_end_are_those_of_the_file(tiny):
    tokenizer = load_tokenizer(tiny)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.add_bos) == (1, 2, False)
    assert load_tokenizer(tiny | {"tokenizer.ggml.add_bos_token": True}).add_bos is True
    assert load_tokenizer(tiny | {"tokenizer.ggml.add_bos_token": True}).encode("") == []
    del tiny["tokenizer.ggml.bos_token_id"], tiny["tokenizer.ggml.eos_token_id"]
    assert (load_tokenizer(tiny).bos_id, load_tokenizer(tiny).eos_id) == (None, None)


def test_a_lone_surrogate_does_no_harm(gpt2):
    assert gpt2.decode(gpt2.encode("a\ud800b")).strip("\ufffd") == "a\ufffd\ufffd\ufffdb"


def test_a_merge_whose_result_is_no_token_falls_back_to_bytes(tiny):
    tokenizer = load_tokenizer(tiny | {"tokenizer.ggml.merges": ["x y", "h e"]})
    tokens = tiny["tokenizer.ggml.tokens"]
    assert tokenizer.encode("xyhe") == [tokens.index("x"), tokens.index("y"), tokens.index("he")]


@pytest.mark.parametrize("id", [-1, 302, 2**40])
def test_an_id_outside_the_vocabulary_is_refused(tiny, id):
    with pytest.raises(OptionError, match=str(id)):
        load_tokenizer(tiny).decode([id])


REFUSED = {  # what is wrong -> (changes to the metadata, what the message names)
    "unknown model": ({"model": "t5"}, "tokenizer.ggml.model is 't5'"),
    "no model": ({"model": None}, "tokenizer.ggml.model is missing"),
    "model is a number": ({"model": 3}, "tokenizer.ggml.model"),
    "unknown pre-tokenizer": ({"pre": "qwen9"}, "tokenizer.ggml.pre is 'qwen9'"),
    "no tokens": ({"tokens": None}, "tokenizer.ggml.tokens is missing"),
    "tokens are numbers": ({"tokens": np.arange(3)}, "tokenizer.ggml.tokens"),
    "empty vocabulary": ({"tokens": []}, "tokenizer.ggml.tokens is empty"),
    "no merges": ({"merges": None}, "tokenizer.ggml.merges is missing"),
    "merges are a text": ({"merges": "a b"}, "tokenizer.ggml.merges"),
    "too few token types": ({"token_type": np.ones(3, np.int32)}, "tokenizer.ggml.token_type has 3"),
    "token types are fractions": ({"token_type": np.full(302, np.nan)}, "tokenizer.ggml.token_type"),
    "token types are texts": ({"token_type": ["a"]}, "tokenizer.ggml.token_type"),
    "bos out of range": ({"bos_token_id": 302}, "tokenizer.ggml.bos_token_id is 302"),
    "eos out of range": ({"eos_token_id": 2**32 - 1}, "tokenizer.ggml.eos_token_id is 4294967295"),
    "eot negative": ({"eot_token_id": -1}, "tokenizer.ggml.eot_token_id is -1"),
    "unknown is a truth": ({"unknown_token_id": True}, "unknown_token_id is True, of type bool, not int;"),
    "eos is a text": ({"eos_token_id": "</s>"}, "tokenizer.ggml.eos_token_id"),
    "bos wanted but not named": ({"add_bos_token": True, "bos_token_id": None}, "bos_token_id"),
}


@pytest.mark.parametrize("changes, named", REFUSED.values(), ids=REFUSED)
def test_a_vocabulary_that_cannot_be_used_is_refused_in_one_line(tiny, changes, named):
    for name, value in changes.items():
        tiny[f"tokenizer.ggml.{name}"] = value
        if value is None:
            del tiny[f"tokenizer.ggml.{name}"]
    with pytest.raises(ModelFileError) as caught:
        load_tokenizer(tiny)
    assert named in str(caught.value) and "\n" not in str(caught.value)
