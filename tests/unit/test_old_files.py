"""Files of before GGUF: what is wrong with one is told in one line that names the field, and nothing worse happens."""

import random
import struct
import tracemalloc
from dataclasses import replace

import models_of_2023
import numpy as np
import pytest
from models_of_2023 import Model

from nbllm.errors import ModelFileError
from nbllm.formats.blocks import dequantize
from nbllm.formats.open import open_model
from nbllm.runtime.models import architecture
from nbllm.runtime.packed import Packer

LLAMA = dict(vocab=8, width=32, heads=2, layers=1, feed_forward=96)
GPTJ = dict(vocab=8, width=32, heads=2, layers=1, feed_forward=128, context=64, rotated=8)
SMALL = {
    "ggml": Model("ggml", None, 1, "Q4_0", LLAMA),
    "ggmf": Model("ggmf", 1, 1, "Q4_1", LLAMA | dict(width=64, feed_forward=192), parts=2),
    "ggjt": Model("ggjt", 3, 3, "Q8_0", LLAMA),
    "gptj": Model("ggml", 0, 1, "Q5_0", GPTJ),
}
OLD = {name: [models_of_2023.old_bytes(model, part) for part in range(model.parts)] for name, model in SMALL.items()}
EMBEDDING = b"tok_embeddings.weight"  # its record: 12 bytes, 8 of shape, this name
WTE = b"transformer.wte.weight"  # the same, of GPT-J


def write(folder, *parts):
    """Write the parts of a model; returns the path of the first."""
    for i, raw in enumerate(parts):
        path = folder / ("old.bin" + (f".{i}" if i else ""))
        path.unlink(missing_ok=True)  # some file systems wait for the disk when a file is overwritten
        path.write_bytes(raw)
    return folder / "old.bin"


def message(folder, *parts):
    """The one line with which a file is refused."""
    with pytest.raises(ModelFileError) as caught:
        open_model(write(folder, *parts))
    text = str(caught.value)
    assert "\n" not in text and "old.bin" in text and 20 < len(text) < 400
    return text


def changed(name, *changes, part=0):
    """The parts of a small model, with the bytes at some places of one of them replaced."""
    parts = list(OLD[name])
    raw = bytearray(parts[part])
    for at, new in changes:
        at = at if isinstance(at, int) else raw.index(at[0]) + at[1]
        raw[at : at + len(new)] = new
    parts[part] = bytes(raw)
    return parts


def u32(n):
    return struct.pack("<I", n)


def altered(name, arrays):
    """The parts of a small model with other weights; None leaves one out."""
    own = models_of_2023.weights(SMALL[name]) | arrays
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models_of_2023, "weights", lambda _: {key: own[key] for key in own if own[key] is not None})
        return [models_of_2023.old_bytes(SMALL[name], part) for part in range(SMALL[name].parts)]


NORM = b"ffn_norm.weight"
LAST = b"layers.0.ffn_norm.weight"

DAMAGED = {  # what is wrong -> (the parts, what the message names)
    "version 4 of ggjt": (changed("ggjt", (4, u32(4))), "GGJT version 4"),
    "version 0 of ggmf": (changed("ggmf", (4, u32(0))), "GGMF version 0"),
    "no tokens": (changed("ggml", (4, u32(0))), "n_vocab is 0, outside of 1 to 1048576 (at byte 4)"),
    "more tokens than the limit": (changed("ggml", (4, u32(2**20 + 1))), "n_vocab is 1048577"),
    "more tokens than room": (changed("ggml", (4, u32(2**20))), "n_vocab is 1048576, and the file has room for"),
    "fewer than no tokens": (changed("ggml", (4, u32(2**32 - 8))), "n_vocab is -8"),
    "fewer tokens than rows": (changed("ggjt", (8, u32(7))), "is no tensor of this architecture"),
    "more tokens than entries": (changed("ggjt", (8, u32(12))), "n_vocab is 12, but there are 8 tokens"),
    "two tokens more than entries": (changed("ggml", (4, u32(10))), "n_vocab is 10, but there are 8 tokens"),
    "a row less than tokens": (
        changed("ggml", (4, u32(9))),
        "'tok_embeddings.weight' has shape [8, 32], by the header [9, 32]",
    ),
    "width of 2**31": (changed("ggml", (8, u32(2**31))), "n_embd is -2147483648"),
    "width unlike the heads": (changed("ggml", (8, u32(64))), "n_embd is 64, not n_head * n_rot = 32"),
    "width and heads twice": (changed("ggml", (8, u32(64)), (16, u32(4))), "has 2 parts"),
    "n_mult of 0": (changed("ggml", (12, u32(0))), "n_mult is 0"),
    "another n_mult": (changed("ggml", (12, u32(64))), "w1.weight' has shape [96, 32], by the header [128, 32]"),
    "no heads": (changed("ggml", (16, u32(0))), "n_head is 0"),
    "2**30 layers": (changed("ggml", (20, u32(2**30))), "n_layer is 1073741824"),
    "a layer too many": (changed("ggml", (20, u32(2))), "'layers.1.attention_norm.weight' is missing"),
    "file type of 2**31": (changed("ggml", (28, u32(2**31))), "ftype is -2147483648"),
    "token of 2**32 - 1 bytes": (changed("ggml", (32, u32(2**32 - 1))), "token 0 is 4294967295, the limit 1024"),
    "token past the end": ([OLD["ggml"][0][:60] + u32(1000)], "token"),
    "dimensions: 0": (changed("ggml", ((EMBEDDING, -20), u32(0))), "dimensions"),
    "dimensions: 3": (changed("ggml", ((b"norm.weight", -16), u32(3))), "has 3 dimensions"),
    "name of 2**31 bytes": (changed("ggml", ((b"norm.weight", -12), u32(2**31))), "name of 2147483648 bytes"),
    "name of 0 bytes": (changed("ggml", ((b"norm.weight", -12), u32(0))), "is empty"),
    "name not UTF-8": (changed("ggml", ((NORM, 0), b"\xff")), "is not UTF-8"),
    "name of another architecture": (changed("ggml", ((NORM, 0), b"gfn")), "'layers.0.gfn_norm.weight' is no tensor"),
    "block type unknown": (changed("ggml", ((EMBEDDING, -12), u32(99))), "has block type 99"),
    "block type of another era": (changed("ggjt", ((EMBEDDING, -12), u32(4))), "has block type 4, which is none of"),
    "block type only of activations": (changed("ggml", ((EMBEDDING, -12), u32(9))), "has block type 9"),
    "rows of half a block": (changed("ggml", ((EMBEDDING, -8), u32(48))), "has rows of 48"),
    "rows of nothing": (changed("ggml", ((b"output.weight", -4), u32(0))), "dimension of 0"),
    "shape beyond the file": (changed("ggml", ((EMBEDDING, -4), u32(2**32 - 1))), "needs"),
    "matrix the other way round": (
        changed("ggjt", ((b"feed_forward.w1.weight", -17), u32(96) + u32(32))),
        "has shape [32, 96], by the header [96, 32]",
    ),
    "matrix where a vector is due": (
        altered("ggml", {"blk.0.ffn_norm.weight": np.ones((2, 32))}),
        "'layers.0.ffn_norm.weight' has shape [2, 32], by the header [32]",
    ),
    "vector where a matrix is due": (
        altered("ggmf", {"blk.0.ffn_up.weight": np.ones(64)}),
        "'layers.0.feed_forward.w3.weight' has shape [64], by the header [192, 64]",
    ),
    "tensor missing": (altered("ggjt", {"blk.0.attn_v.weight": None}), "'layers.0.attention.wv.weight' is missing"),
    "embedding missing": (altered("ggjt", {"token_embd.weight": None}), "'tok_embeddings.weight' is missing"),
    "tensor twice": (
        [OLD["ggml"][0] + OLD["ggml"][0][OLD["ggml"][0].rindex(LAST) - 16 :]],
        "'layers.0.ffn_norm.weight' is there twice",
    ),
    "bytes after the end": ([OLD["ggml"][0] + bytes(40)], "has 0 dimensions"),
    "part missing": (OLD["ggmf"][:1], "'old.bin' has 2 parts, and 'old.bin.1' is not beside it"),
    "part of another vocabulary": (changed("ggmf", (41, b"x"), part=1), "vocabulary is not that of 'old.bin'"),
    "part of another kind": ([OLD["ggmf"][0], OLD["ggjt"][0]], "header or vocabulary is not that of 'old.bin'"),
    "part that is GGUF": ([OLD["ggmf"][0], b"GGUF" + OLD["ggmf"][1][4:]], "does not begin with b'GGUF'"),
    "part of another block type": (
        [OLD["ggmf"][0], models_of_2023.old_bytes(replace(SMALL["ggmf"], kinds={"output": "Q4_0"}), 1)],
        "'old.bin.1': tensor 'output.weight' is not as in 'old.bin'",
    ),
    "GPT-J: no context": (changed("gptj", (8, u32(0))), "n_ctx is 0"),
    "GPT-J: heads do not divide the width": (changed("gptj", (16, u32(3))), "n_embd, n_head and n_rot are 32, 3 and 8"),
    "GPT-J: more rotated than a head has": (changed("gptj", (24, u32(17))), "n_head and n_rot are 32, 2 and 17"),
    "GPT-J: quantisation version 3": (changed("gptj", (28, u32(3002))), "ftype is 3002, its quantisation version 3"),
    "GPT-J: the other era": (changed("gptj", (28, u32(1008)), ((WTE, -12), u32(4))), "has block type 4"),
    "GPT-J: a token missing": (changed("gptj", (4, u32(9)), (32, u32(9))), "n_vocab is 9, but there are 8 tokens"),
    "GPT-J: tensor missing": (altered("gptj", {"output.bias": None}), "'lm_head.bias' is missing"),
    "GPT-2": ([b"lmgg" + struct.pack("<7I", 50257, 1024, 768, 12, 12, 1, 50257) + bytes(99)], "n_embd is 1024"),
}  # fmt: skip


@pytest.mark.parametrize("parts, named", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused_in_one_line_that_names_the_field(tmp_path, parts, named):
    text = message(tmp_path, *parts)
    assert named in text, text


@pytest.mark.parametrize("name", SMALL)
def test_a_file_cut_anywhere_is_refused(tmp_path, name):
    raw, rest = OLD[name][0], OLD[name][1:]
    with open_model(write(tmp_path, raw, *rest)) as file:
        ends = [tensor.offset for tensor in file.tensors.values()]
    near = [at + i for at in ends for i in range(-60, 3)]
    draw = random.Random(1)
    head = raw.index(WTE if name == "gptj" else EMBEDDING) + 40
    cuts = {*range(head), *near, *(draw.randrange(len(raw)) for _ in range(200))}
    for cut in sorted(cut for cut in cuts if cut < len(raw)):
        message(tmp_path, raw[:cut], *rest)
    for i, part in enumerate(rest):
        for cut in (0, 30, len(part) // 2, len(part) - 1):
            message(tmp_path, raw, *rest[:i], part[:cut], *rest[i + 1 :])


@pytest.mark.parametrize("name", SMALL)
def test_the_header_knows_at_which_byte_its_numbers_are(tmp_path, name):
    with open_model(write(tmp_path, *OLD[name])) as file:
        places = file.metadata.places
        assert len(places) >= 5
        assert [struct.unpack_from("<i", OLD[name][0], at)[0] for at in places.values()] == [
            file.metadata[key] for key in places
        ]


def test_a_number_that_cannot_be_run_is_refused_with_its_byte(tmp_path):
    raw = bytearray(OLD["gptj"][0])
    raw[24:28] = u32(1)  # n_rot
    with open_model(write(tmp_path, raw)) as file:
        with pytest.raises(ModelFileError, match=r"'gptj.rope.dimension_count' is 1 \(at byte 24\), outside of 2 to"):
            architecture(file.metadata)(file, Packer())


@pytest.mark.parametrize("name", SMALL)
def test_changed_bytes_never_do_worse_than_a_refusal(tmp_path, name):
    draw, outcomes = random.Random(name), []
    extremes = [0, 1, 2, 3, 31, 33, 1023, 2**16, 2**31 - 1, 2**31, 2**32 - 1]
    tracemalloc.start()
    for _ in range(250):
        parts = [bytearray(raw) for raw in OLD[name]]
        for _ in range(draw.choice([1, 1, 2, 8])):
            raw = draw.choice(parts)
            at = draw.choice([draw.randrange(len(raw)), draw.randrange(40), draw.randrange(200)])
            if draw.random() < 0.5:
                raw[at] = draw.randrange(256)
            elif draw.random() < 0.7:
                raw[at - at % 4 : at - at % 4 + 4] = u32(draw.choice(extremes))
            else:
                del raw[at : at + draw.randrange(1, 9)]
        try:
            with open_model(write(tmp_path, *parts)) as file:
                for tensor in file.tensors.values():
                    assert dequantize(tensor.block_type, tensor.data).shape == tensor.shape
                assert len(file.metadata["tokenizer.ggml.tokens"]) == file.tensors["token_embd.weight"].shape[0]
            outcomes.append(True)
        except ModelFileError as error:
            assert "\n" not in str(error) and 20 < len(str(error)) < 400
            outcomes.append(False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 24  # bytes; the files have 1 % of that
    assert 0.05 < np.mean(outcomes) < 0.95  # both happen, so the test reaches both sides


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, 65536.0, -1e30])
def test_a_scale_that_half_precision_cannot_hold_is_an_error_when_it_is_read(tmp_path, scale):
    raw = bytearray(OLD["ggml"][0])
    start = raw.index(EMBEDDING) + len(EMBEDDING)
    raw[start + 20 : start + 24] = np.float32(scale).tobytes()  # of the second row
    with open_model(write(tmp_path, raw)) as file:
        tensor = file.tensors["token_embd.weight"]
        assert tensor.read(0, 18).size == 18
        with pytest.raises(
            ModelFileError, match=rf"tensor 'token_embd.weight' \(from byte {start}\): a scale of its Q4_0"
        ):
            tensor.read()


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_vocabulary_may_be_shorter_than_the_tokens_that_all_have(tmp_path, size):
    model = replace(SMALL["ggjt"], sizes=LLAMA | dict(vocab=size))
    with open_model(write(tmp_path, models_of_2023.old_bytes(model))) as file:
        texts = ["<unk>", "<s>", "</s>", "<0x00>", "<0x01>"]
        assert file.metadata["tokenizer.ggml.tokens"] == texts[:size]
        assert file.metadata["tokenizer.ggml.token_type"].tolist() == [2, 3, 3, 6, 6][:size]


def test_the_end_of_a_text_of_gptj_is_known_by_its_token(tmp_path):
    raw = OLD["gptj"][0].replace(struct.pack("<I", 1) + b"\5", struct.pack("<I", 13) + b"<|endoftext|>", 1)
    with open_model(write(tmp_path, raw)) as file:
        assert file.metadata["tokenizer.ggml.eos_token_id"] == 5


def test_scores_that_the_first_container_leaves_out_are_those_of_llama(tmp_path):
    tokens = [b"x%d" % id for id in range(32001)]
    tokens[:259] = " ⁇ ".encode(), b"", b"", *(bytes([byte]) for byte in range(256))
    pieces = {260: b" t", 261: b"er", 500: b"     ", 29871: b" ", 31999: "给".encode(), 32000: b"[A PAD]"}
    for id, piece in pieces.items():
        tokens[id] = piece
    model = Model("ggml", None, 1, "Q4_0", LLAMA | dict(vocab=32001))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models_of_2023, "llama_vocabulary", lambda _: [(token, None) for token in tokens])
        path = write(tmp_path, models_of_2023.old_bytes(model))
    with open_model(path) as file:
        scores, types = (file.metadata[f"tokenizer.ggml.{key}"] for key in ("scores", "token_type"))
        expected = -np.maximum(np.arange(32001) - 259, 0).astype(np.float32)
        expected[[500, 29871, 32000]] = -1e9
        np.testing.assert_array_equal(scores, expected)
        texts = file.metadata["tokenizer.ggml.tokens"]
        assert (texts[260], texts[500], texts[32000], types[32000]) == ("▁t", "▁" * 5, "[A PAD]", 3)
