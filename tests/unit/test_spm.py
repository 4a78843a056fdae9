"""SentencePiece, Gemma 4's merging and WordPiece on small vocabularies, where every rule can be seen."""

import random

import numpy as np
import pytest
import vocabularies
from reference_merge import merge_slowly

from nbllm.errors import ModelFileError
from nbllm.tokenizers import load_tokenizer
from nbllm.tokenizers import spm as spm_module

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
PIECES = {"▁": -1, "h": -2, "e": -3, "l": -4, "o": -5, "▁▁": -1e9, "he": 0, "ll": 1, "hell": 2, "lo": 3}
PIECES |= {"▁h": 4, "o▁": 5}
FIRST = 3 + 256  # id of the first piece


def spm(**changes):
    """Special tokens, bytes, and pieces with scores."""
    tokens = ["<unk>", "<s>", "</s>", *BYTES, *PIECES, "<pad>"]
    keys = {
        "model": "llama",
        "tokens": tokens,
        "scores": np.array([0] * FIRST + [*PIECES.values(), 0], np.float32),
        "token_type": np.array([2, 3, 3] + [6] * 256 + [1] * len(PIECES) + [4], np.int32),
    }
    return {f"tokenizer.ggml.{key}": value for key, value in (keys | changes).items() if value is not None}


def texts(tokenizer, text, **how):
    return [tokenizer.tokens[id] for id in tokenizer.encode(text, **how)]


def test_the_best_score_merges_first_and_the_leftmost_among_equals():
    tokenizer = load_tokenizer(spm(add_space_prefix=False))
    assert texts(tokenizer, "hello") == ["he", "l", "lo"]  # "lo" is better than "ll", and then "hell" cannot be
    assert texts(tokenizer, "hell") == ["hell"]
    assert texts(tokenizer, "lll") == ["ll", "l"]
    assert texts(tokenizer, "o o") == ["o▁", "o"]


def test_a_text_begins_with_a_space_that_is_not_shown():
    tokenizer = load_tokenizer(spm())
    assert texts(tokenizer, "he") == ["▁h", "e"]
    assert texts(tokenizer, "<s>he</s>he") == ["<s>", "▁h", "e", "</s>", "▁h", "e"]
    assert texts(tokenizer, "<s>he<pad>he", special=False)[-3:] == ["<pad>", "▁h", "e"]
    assert texts(tokenizer, "he", start=False) == ["he"]
    assert tokenizer.decode(tokenizer.encode("he")) == "he"
    assert tokenizer.decode(tokenizer.encode(" he")) == " he"
    assert tokenizer.decode(tokenizer.encode("he"), start=False) == " he"
    stream = tokenizer.stream()
    assert [stream.push(id) for id in tokenizer.encode("he")] == [" h", "e"]
    assert texts(load_tokenizer(spm(add_space_prefix=False)), "he") == ["he"]


def test_what_is_no_piece_becomes_bytes_and_comes_back():
    tokenizer = load_tokenizer(spm())
    assert texts(tokenizer, "é\n", start=False) == ["<0xC3>", "<0xA9>", "<0x0A>"]
    assert tokenizer.decode(tokenizer.encode("hé\n🦀 ")) == "hé\n🦀 "
    stream = tokenizer.stream()
    assert [stream.push(id) for id in tokenizer.encode("é", start=False)] == ["", "é"]
    few = [token for token in spm()["tokenizer.ggml.tokens"] if token != "<0xA9>"]
    without = load_tokenizer(spm(tokens=few, scores=np.zeros(len(few), np.float32), token_type=None))
    assert texts(without, "é", start=False) == ["<0xC3>", "<unk>"]


def test_text_does_not_merge_into_a_control_token():
    tokens = [*spm()["tokenizer.ggml.tokens"], "<", "s", ">", "<s"]
    kinds = np.append(spm()["tokenizer.ggml.token_type"], [1, 1, 1, 1]).astype(np.int32)
    tokenizer = load_tokenizer(spm(tokens=tokens, token_type=kinds, scores=np.zeros(len(tokens), np.float32)))
    assert texts(tokenizer, "<s>", special=False, start=False) == ["<s", ">"]


def test_ids_and_the_beginning_are_llamas_where_the_file_does_not_say():
    tokenizer = load_tokenizer(spm())
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.unknown_id, tokenizer.add_bos) == (1, 2, 0, True)
    assert tokenizer.end_ids == {2}
    assert load_tokenizer(spm(add_bos_token=False)).add_bos is False


def test_cutting_a_long_text_changes_no_id(monkeypatch):
    monkeypatch.setattr(spm_module, "SHORT", 0)
    tokenizer = load_tokenizer(vocabularies.read("phi-3"))
    draw = random.Random(1)
    for _ in range(100):
        text = "".join(draw.choice("the and  of to\n你好世界。éüаб{}();=_09") for _ in range(draw.randrange(300)))
        whole = [token for token in merge_slowly(tokenizer._priority, list(text.replace(" ", "▁")))]
        assert "".join(texts(tokenizer, text, start=False)) == "".join(
            token if token in tokenizer.ids else "".join(BYTES[byte] for byte in token.encode()) for token in whole
        )
        assert [token for token in texts(tokenizer, text, start=False) if token not in BYTES] == [
            token for token in whole if token in tokenizer.ids
        ]


@pytest.mark.parametrize(("changes", "named"), [
    ({"scores": None}, "tokenizer.ggml.scores is missing"),
    ({"scores": np.zeros(3, np.float32)}, "tokenizer.ggml.scores has 3"),
    ({"scores": ["a"]}, "tokenizer.ggml.scores"),
    ({"bos_token_id": 10**6}, "tokenizer.ggml.bos_token_id is 1000000"),
])  # fmt: skip
def test_a_vocabulary_that_cannot_be_used_is_refused_in_one_line(changes, named):
    with pytest.raises(ModelFileError) as caught:
        load_tokenizer(spm(**changes))
    assert named in str(caught.value) and "\n" not in str(caught.value)


# ---- Gemma 4


def gemma4():
    tokens = ["<pad>", "<eos>", "<bos>", *BYTES, "▁", "a", "b", "\n", "\n\n", "ab", "▁a", "▁ab", "b▁"]
    types = np.array([3, 3, 3] + [6] * 256 + [1] * 9, np.int32)
    keys = {"model": "gemma4", "tokens": tokens, "token_type": types, "bos_token_id": 2,
            "merges": ["a b", "▁ ab", "▁ a", "b ▁"]}  # fmt: skip
    return load_tokenizer({f"tokenizer.ggml.{key}": value for key, value in keys.items()})


@pytest.mark.parametrize("short", [0, 2048])
def test_gemma_4_merges_characters_by_rank_within_lines(monkeypatch, short):
    monkeypatch.setattr(spm_module, "SHORT", short)
    tokenizer = gemma4()
    assert texts(tokenizer, "ab ab a") == ["ab", "▁ab", "▁a"]
    assert texts(tokenizer, "a\n\na\n\n\né") == ["a", "\n\n", "a", "\n", "\n", "\n", "<0xC3>", "<0xA9>"]
    assert tokenizer.decode(tokenizer.encode(" ab\n\ncé")) == " ab\n\ncé"
    assert (tokenizer.add_bos, tokenizer.bos_id, tokenizer.end_ids) == (True, 2, {1})


# ---- WordPiece


def wordpiece(**changes):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "▁un", "aff", "able", "▁é", "▁e", "▁!", "▁世", "▁A"]
    keys = {"model": "bert", "tokens": tokens, "token_type": np.array([3, 3, 3] + [1] * 8, np.int32),
            "unknown_token_id": 1, "bos_token_id": 2}  # fmt: skip
    return load_tokenizer({f"tokenizer.ggml.{key}": value for key, value in (keys | changes).items()})


def test_wordpiece_takes_the_longest_token_from_the_start_of_each_word():
    tokenizer = wordpiece()
    assert texts(tokenizer, "UNaffable unaffableness !\t世é [CLS]") == [
        "▁un", "aff", "able", "[UNK]", "▁!", "▁世", "▁e", "[CLS]",
    ]  # fmt: skip
    assert tokenizer.decode(tokenizer.encode("unaffable !")) == " unaffable !"
    assert tokenizer.add_bos is True


def test_wordpiece_takes_the_longest_of_any_tokens():
    draw = random.Random(2)
    for _ in range(200):
        tokens = ["[PAD]", "[UNK]", "[CLS]", *{draw.choice(["", "▁"]) + "".join(draw.choice("ab") for _ in range(
            draw.randrange(1, 7))) for _ in range(12)}]  # fmt: skip
        tokenizer = wordpiece(tokens=tokens, token_type=np.array([3, 3, 3] + [1] * (len(tokens) - 3), np.int32))
        word = "".join(draw.choice("ab") for _ in range(draw.randrange(1, 20)))
        rest, expected = f"▁{word}", []
        while rest and expected != ["[UNK]"]:
            fit = max((token for token in tokens if rest.startswith(token)), key=len, default=None)
            expected, rest = (["[UNK]"], "") if fit is None else ([*expected, fit], rest[len(fit):])
        assert texts(tokenizer, word) == expected


def test_a_long_word_and_a_long_token_take_wordpiece_no_cubic_time():
    tokens = ["[PAD]", "[UNK]", "[CLS]", "▁", "a", "aab" + "b" * 20_000, *(f"{'a' * n}c" for n in range(300))]
    tokenizer = wordpiece(tokens=tokens, token_type=np.array([3, 3, 3] + [1] * (len(tokens) - 3), np.int32))
    assert tokenizer.encode("a" * 20_000) == [3] + [4] * 20_000


def test_wordpiece_keeps_case_and_accents_where_the_file_says_so():
    assert texts(wordpiece(**{"normalizer.lowercase": False}), "A é") == ["▁A", "▁é"]
    assert texts(wordpiece(**{"normalizer.strip_accents": False}), "é") == ["▁é"]
