"""The GGUF reader: good files are read exactly, bad ones refused with one line that names the field."""

import os
import random
import struct
import time

import gguf
import numpy as np
import pytest
import tiny_gguf

from nbllm.errors import ModelFileError, ModelNotFoundError
from nbllm.formats.blocks import dequantize
from nbllm.formats.open import open_model
from nbllm.tokenizers import load_tokenizer

VALUES = {
    "u8": np.uint8(200), "i8": np.int8(-100), "u16": np.uint16(60000), "i16": np.int16(-30000), "u32": 4_000_000_000,
    "i32": -2_000_000_000, "f32": 0.1, "yes": True, "no": False, "u64": np.uint64(2**64 - 1), "i64": np.int64(-(2**63)),
    "f64": np.float64(0.1), "text": "zwölf 字 🦀\n{}", "nothing": "", "raw": "\udcff\udc80a",
    "texts": ["a", "", "Ġthe", "字", "\udcff"], "no texts": [],
    "texts with NUL": ["a\0b", "\0", ""], "long texts": ["x" * 300, "y"],
    "numbers": np.array([1, -2, 3], np.int32), "fractions": np.array([0.5, -0.25], np.float32),
    "flags": np.array([True, False]),
    "large": np.array([2**63], np.uint64), "no numbers": np.array([], np.float64),
}  # fmt: skip


def write(path, raw):
    path.unlink(missing_ok=True)  # some file systems wait for the disk when a file is overwritten
    path.write_bytes(raw)
    return path


@pytest.fixture(scope="module")
def weights():
    random = np.random.default_rng(0)
    return {
        "first": (random.standard_normal((3, 64)).astype(np.float32), "Q4_0"),
        "second.weight": (random.standard_normal(5).astype(np.float32), "F32"),
        "third": (random.standard_normal((2, 3, 32)).astype(np.float32), "Q8_0"),
    }


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("alignment", [None, 1, 64, 4096])
def test_metadata_and_tensors_are_those_written(tmp_path, weights, version, alignment):
    metadata = dict(VALUES) if alignment is None else {**VALUES, "general.alignment": alignment}
    path = write(tmp_path / "a.gguf", tiny_gguf.gguf_bytes(metadata, weights, version))
    with open_model(path) as file:
        assert (file.path, file.container) == (path, f"GGUF {version}")
        assert list(file.metadata) == list(metadata) and list(file.tensors) == list(weights)
        for key, value in metadata.items():
            read = file.metadata[key]
            if isinstance(value, np.ndarray):
                assert read.dtype == value.dtype and np.array_equal(read, value), key
            else:
                expected = np.float32(value).item() if type(value) is float else value
                assert read == expected and type(read) in (int, float, bool, str, list), key
        for name, (array, kind) in weights.items():
            tensor = file.tensors[name]
            assert (tensor.name, tensor.shape, tensor.block_type.name) == (name, array.shape, kind)
            assert tensor.data.shape[:-1] == array.shape[:-1] and tensor.data.dtype == np.uint8
            assert tensor.data.tobytes() == tiny_gguf.encode(array, kind)
            assert tensor.nbytes == tensor.data.nbytes and tensor.offset % (alignment or 32) == 0


def test_a_model_reads_as_the_gguf_package_reads_it(tiny_model):
    theirs = gguf.GGUFReader(tiny_model)
    with open_model(tiny_model) as file:
        assert {tensor.name for tensor in theirs.tensors} == set(file.tensors)
        for tensor in theirs.tensors:
            ours = file.tensors[tensor.name]
            assert ours.offset == tensor.data_offset and ours.block_type.id == tensor.tensor_type
            values = dequantize(ours.block_type, ours.data)
            assert np.array_equal(values, gguf.dequantize(tensor.data, tensor.tensor_type))
        for key, value in file.metadata.items():
            expected = theirs.fields[key].contents()
            assert np.array_equal(value, expected) if isinstance(value, np.ndarray) else value == expected, key


def test_bytes_are_read_only_and_outlive_the_file(tiny_model):
    with open_model(tiny_model) as file:
        data = file.tensors["output_norm.weight"].data
        with pytest.raises(ValueError, match="read-only"):
            data[0] = 1
    assert data.tobytes() in tiny_model.read_bytes()
    with pytest.raises(ValueError, match="closed"):
        file.tensors["output_norm.weight"].data


def test_reading_gives_the_mapped_bytes_and_a_file_that_was_cut_meanwhile_is_an_error(tiny_model, tmp_path):
    path = write(tmp_path / "a.gguf", tiny_model.read_bytes())
    with open_model(path) as file:
        assert file.size == path.stat().st_size
        assert file.read(0, 4).tobytes() == b"GGUF"
        tensor = list(file.tensors.values())[-1]
        np.testing.assert_array_equal(tensor.read(), tensor.data.ravel())
        np.testing.assert_array_equal(tensor.read(3, 40), tensor.data.ravel()[3:40])
        os.truncate(path, tensor.offset + 8)
        with pytest.raises(ModelFileError, match="cut short"):
            tensor.read()


def test_a_vocabulary_of_262144_tokens_is_read_fast(tmp_path, record_property):
    draw = random.Random(0)
    tokens = ["Ġ" * draw.randrange(2) + "abcdefgé你好th"[: draw.randrange(1, 12)] for _ in range(2**18)]
    merges = ["Ġab cdefgé你"[: draw.randrange(3, 11)] for _ in range(2**18)]
    metadata = {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.scores": np.arange(2**18, dtype=np.float32),
        "tokenizer.ggml.token_type": np.ones(2**18, np.int32),
    }
    path = write(tmp_path / "a.gguf", tiny_gguf.gguf_bytes(metadata, {}))
    start = time.perf_counter()
    with open_model(path) as file:
        record_property("seconds", time.perf_counter() - start)
        assert time.perf_counter() - start < 5  # about 0.15
        assert file.metadata["tokenizer.ggml.tokens"] == tokens and file.metadata["tokenizer.ggml.merges"] == merges


# ---- damaged files, field by field


def u32(n):
    return struct.pack("<I", n)


def u64(n):
    return struct.pack("<Q", n)


def header(n_tensors=0, n_keys=0, magic=b"GGUF", version=3):
    return magic + u32(version) + u64(n_tensors) + u64(n_keys)


def key(name, value):
    return tiny_gguf.string(name) + value


def one_key(raw):
    return header(n_keys=1) + raw + bytes(64)


def info(name=b"w", dims=(32, 2), kind=0, offset=0):
    return tiny_gguf.string(name) + u32(len(dims)) + b"".join(map(u64, dims)) + u32(kind) + u64(offset)


def tensors(*infos, data=4096, keys=b"", n_keys=0):
    head = header(len(infos), n_keys) + keys + b"".join(infos)
    return head + bytes(-len(head) % 32) + bytes(data)


def alignment(value):
    return tensors(info(), keys=key("general.alignment", value), n_keys=1)


TEXTS = u32(9) + u32(8)  # the beginning of an array of strings

DAMAGED = {  # what is wrong -> (the file, what the message names)
    "empty": (b"", "0 bytes"),
    "one byte": (b"G", "1 bytes"),
    "header cut": (header()[:23], "23 bytes"),
    "bad magic": (header(magic=b"GGUG"), "b'GGUG'"),
    "zeros": (bytes(100), "not a model file"),
    "LoRA adapter": (header(magic=b"lagg"), "LoRA"),
    "web page": (b"<!DOCTYPE html><html><body>not found</body></html>", "web page"),
    "zip archive": (b"PK\3\4" + bytes(60), "zip archive"),
    "version 0": (header(version=0), "version 0"),
    "version 99": (header(version=99), "version 99"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "tensors: 2**64 - 1": (header(n_tensors=2**64 - 1) + bytes(99), "number of tensors is 18446744073709551615"),
    "tensors: no room": (header(n_tensors=5) + bytes(99), "number of tensors is 5"),
    "tensors: above the limit": (header(n_tensors=2**17) + bytes(2**22), "number of tensors is 131072"),
    "keys: 2**63": (header(n_keys=2**63) + bytes(99), "number of metadata keys"),
    "keys: no room": (header(n_keys=9) + bytes(99), "number of metadata keys is 9"),
    "keys: one too many": (header(n_keys=2) + key("a", tiny_gguf.value(1)) + bytes(7), "number of metadata keys is 2"),
    "key: length 2**64 - 1": (one_key(u64(2**64 - 1)), "length of a metadata key is 18446744073709551615"),
    "key: past the end": (one_key(u64(1000)), "a metadata key needs 1000 bytes"),
    "key: too long": (one_key(u64(2**16 + 1) + b"k" * (2**16 + 1)), "length of a metadata key is 65537"),
    "key: empty": (one_key(key("", tiny_gguf.value(1))), "a metadata key is empty"),
    "key: not UTF-8": (one_key(key(b"\xff\xfe", tiny_gguf.value(1))), "a metadata key is not UTF-8"),
    "key: twice": (header(n_keys=2) + key("twin", tiny_gguf.value(1)) * 2, "'twin' is there twice"),
    "key: of many lines": (one_key(key("a\nb", u32(99))), r"'a\nb' has the unknown value type 99"),
    "value: unknown type": (one_key(key("k", u32(13))), "'k' has the unknown value type 13"),
    "value: cut": (header(n_keys=1) + key("k", u32(10)) + bytes(7), "'k' needs 8 bytes"),
    "string: length 2**63": (one_key(key("k", u32(8) + u64(2**63))), "length of 'k' is 9223372036854775808"),
    "string: past the end": (one_key(key("k", u32(8) + u64(100))), "'k' needs 100 bytes"),
    "array: of unknown type": (
        one_key(key("k", u32(9) + u32(77) + u64(1))),
        "'k' is an array of the unsupported value type 77",
    ),
    "array: of arrays": (
        one_key(key("k", u32(9) + u32(9) + u64(1))),
        "'k' is an array of the unsupported value type 9",
    ),
    "array: 2**64 - 1 numbers": (
        one_key(key("k", u32(9) + u32(4) + u64(2**64 - 1))),
        "length of 'k' is 18446744073709551615",
    ),
    "array: size wraps": (one_key(key("k", u32(9) + u32(10) + u64(2**61 + 1))), "length of 'k'"),
    "array: past the end": (one_key(key("k", u32(9) + u32(4) + u64(17))), "length of 'k' is 17"),
    "strings: no room": (one_key(key("k", TEXTS + u64(9))), "length of 'k' is 9"),
    "strings: above the limit": (
        header(n_keys=1) + key("k", TEXTS + u64(2**23)) + bytes(2**26),
        "length of 'k' is 8388608",
    ),
    "strings: one past the end": (
        one_key(key("k", TEXTS + u64(2) + u64(1) + b"a" + u64(200))),
        "string 1 of 'k' needs 200 bytes",
    ),
    "strings: one of 2**62": (one_key(key("k", TEXTS + u64(2) + u64(2**62))), "length of string 0 of 'k'"),
    "alignment: 0": (alignment(u32(4) + u32(0)), "general.alignment is 0"),
    "alignment: 3": (alignment(u32(4) + u32(3)), "general.alignment is 3"),
    "alignment: 2**31": (alignment(u32(4) + u32(2**31)), "general.alignment is 2147483648"),
    "alignment: u64": (alignment(u32(10) + u64(32)), "general.alignment has value type 10"),
    "alignment: a text": (alignment(u32(8) + tiny_gguf.string("32")), "general.alignment has value type 8"),
    "tensor name: empty": (tensors(info(b"")), "a tensor name is empty"),
    "tensor name: too long": (tensors(info(b"w" * 64)), "length of a tensor name is 64"),
    "tensor name: not UTF-8": (tensors(info(b"\xc3(")), "a tensor name is not UTF-8"),
    "tensor name: twice": (tensors(info(b"w"), info(b"w", offset=256)), "tensor 'w' is there twice"),
    "dimensions: 0": (tensors(info(dims=())), "tensor 'w' has 0 dimensions"),
    "dimensions: 5": (tensors(info(dims=(1,) * 5)), "tensor 'w' has 5 dimensions"),
    "dimensions: 2**32 - 1": (tensors(tiny_gguf.string("w") + u32(2**32 - 1)), "tensor 'w' has 4294967295 dimensions"),
    "shape: a zero": (tensors(info(dims=(32, 0))), "tensor 'w' has a dimension of 0"),
    "shape: product wraps to 0": (tensors(info(dims=(2**32, 2**32))), "tensor 'w' ends at byte"),
    "shape: product wraps to 1": (tensors(info(dims=(2**64 - 1, 2**64 - 1))), "tensor 'w' ends at byte"),
    "shape: rows of half a block": (tensors(info(dims=(48, 2), kind=2)), "tensor 'w' has rows of 48"),
    "block type: unknown": (tensors(info(kind=99)), "tensor 'w' has the unknown block type 99"),
    "block type: retired": (tensors(info(kind=4)), "tensor 'w' has the unknown block type 4"),
    "offset: unaligned": (tensors(info(offset=8)), "tensor 'w' has offset 8"),
    "offset: wraps": (tensors(info(offset=2**64 - 32)), "tensor 'w' has offset 18446744073709551584"),
    "offset: overlap": (tensors(info(b"v"), info(b"w", offset=128)), "tensor 'w' has offset 128, not 256"),
    "offset: gap": (tensors(info(b"v"), info(b"w", offset=512)), "tensor 'w' has offset 512, not 256"),
    "data: one byte short": (tensors(info(), data=255), "tensor 'w' ends at byte"),
    "data: half": (tensors(info(b"v"), info(b"w", offset=256), data=256), "tensor 'w' ends at byte"),
    "data: none": (header(1) + info(), "tensor 'w' ends at byte"),
}  # fmt: skip


@pytest.mark.parametrize("raw, named", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_file_is_refused_in_one_line_that_names_the_field(tmp_path, raw, named):
    with pytest.raises(ModelFileError) as caught:
        open_model(write(tmp_path / "damaged.gguf", raw))
    message = str(caught.value)
    assert named in message and "damaged.gguf" in message and "\n" not in message


def test_what_is_no_file_is_refused_in_one_line(tmp_path):
    with pytest.raises(ModelNotFoundError, match="no.gguf"):
        open_model(tmp_path / "no.gguf")
    with pytest.raises(ModelNotFoundError, match="x.gguf"):
        open_model(write(tmp_path / "a", b"") / "x.gguf")
    with pytest.raises(ModelFileError, match="is a directory"):
        open_model(tmp_path)
    with pytest.raises(ModelFileError, match="not a regular file"):
        open_model(os.devnull)
    with pytest.raises(ModelFileError, match="cannot be read"):
        open_model("a\0b")


# ---- models in several files


def part(number, parts, tensors, total=3, **changes):
    """The bytes of one part; `changes` replace its split keys, None leaves one out."""
    split = {"no": np.uint16(number), "count": np.uint16(parts), "tensors_count": np.int32(total)} | changes
    keys = {f"split.{key.replace('_', '.')}": value for key, value in split.items() if value is not None}
    own = {"general.name": "first"} if number == 0 else {}
    weights = {name: (np.full(32, i, np.float32), "F32") for i, name in enumerate(tensors)}
    return tiny_gguf.gguf_bytes(own | keys, weights)


def write_parts(folder, *parts, name="m-{:05d}-of-{:05d}.gguf"):
    """Write parts, None leaves one out; returns the path of the first."""
    paths = [folder / name.format(i + 1, len(parts)) for i in range(len(parts))]
    for path, raw in zip(paths, parts, strict=True):
        if raw is not None:
            write(path, raw)
    return paths[0]


def test_a_model_in_three_files_is_one(tmp_path):
    with open_model(write_parts(tmp_path, part(0, 3, "a"), part(1, 3, "b"), part(2, 3, "c"))) as file:
        assert file.metadata["general.name"] == "first" and list(file.tensors) == ["a", "b", "c"]
        assert file.container == "GGUF 3, 3 parts"
        for tensor in file.tensors.values():
            there = file.read(tensor.offset, tensor.offset + tensor.nbytes)
            assert tensor.read().tobytes() == tensor.data.tobytes() == there.tobytes()
        offsets = [tensor.offset for tensor in file.tensors.values()]
        assert offsets == sorted(set(offsets))
    with pytest.raises(ValueError, match="closed"):
        tensor.data


def test_the_only_part_of_a_model_may_have_any_name(tmp_path):
    with open_model(write(tmp_path / "m.gguf", part(0, 1, "abc"))) as file:
        assert list(file.tensors) == ["a", "b", "c"] and file.container == "GGUF 3"


LATER = part(1, 2, "bc")
DAMAGED_PARTS = {  # what is wrong -> (the parts, what the message names)
    "second missing": ((part(0, 2, "a"), None), "has 2 parts, and 'm-00002-of-00002.gguf' is not beside it"),
    "second damaged": ((part(0, 2, "a"), LATER[:-60]), "'m-00002-of-00002.gguf': tensor 'c' ends at byte"),
    "second of another magic": ((part(0, 2, "a"), b"tjgg" + LATER[4:]), "does not begin with b'tjgg'"),
    "second is the first": ((part(0, 2, "a"), part(0, 2, "bc")), "split.no is 0, not 1"),
    "first is the second": ((part(1, 2, "a"), LATER), "it is not the first of 2 parts"),
    "second of three": ((part(0, 2, "a"), part(1, 3, "bc")), "split.count is 3, not 2"),
    "second not a part": ((part(0, 2, "a"), part(1, 2, "bc", count=None)), "split.count is None, not 2"),
    "more parts than the name says": ((part(0, 3, "a"), LATER), "split.count is 3, and the file's name is not like it"),
    "no parts": ((part(0, 0, "a"), LATER), "split.count is 0, not a number from 1 to 1024"),
    "too many parts": ((part(0, 2000, "a"), LATER), "split.count is 2000, not a number from 1 to 1024"),
    "count of a text": ((part(0, 2, "a", count="2"), LATER), "split.count is '2'"),
    "tensor in both": ((part(0, 2, "ab"), LATER), "tensor 'b' is in an earlier part too"),
    "tensors missing": ((part(0, 2, "a", 4), LATER), "split.tensors.count is 4, not 3"),
}  # fmt: skip


@pytest.mark.parametrize("parts, named", DAMAGED_PARTS.values(), ids=DAMAGED_PARTS)
def test_parts_that_do_not_make_a_model_are_refused_in_one_line(tmp_path, parts, named):
    with pytest.raises(ModelFileError) as caught:
        open_model(write_parts(tmp_path, *parts))
    assert named in str(caught.value) and "\n" not in str(caught.value)


def test_whoever_opens_a_later_part_is_told_the_first(tmp_path):
    first = write_parts(tmp_path, part(0, 2, "a"), LATER)
    with pytest.raises(ModelFileError, match="open 'm-00001-of-00002.gguf'"):
        open_model(first.with_name("m-00002-of-00002.gguf"))
    with pytest.raises(ModelFileError, match="the first to NAME-00001-of-00002.gguf"):
        open_model(first.rename(tmp_path / "other.gguf"))


# ---- files damaged anywhere


def survives(path):
    """Read the file and all that hangs on it: True, or False when it is refused with one line."""
    try:
        with open_model(path) as file:
            for tensor in file.tensors.values():
                assert tensor.data.size == tensor.nbytes
            load_tokenizer(file.metadata)
        return True
    except ModelFileError as error:
        assert "\n" not in str(error) and 20 < len(str(error)) < 1000
        return False


@pytest.mark.parametrize("version", [1, 3])
def test_a_file_cut_anywhere_is_refused(tmp_path, version):
    raw = tiny_gguf.gguf_bytes(*tiny_gguf.llama(block_type="Q8_0", layers=1), version)
    draw, refused = random.Random(6), 0
    cuts = [*range(0, 200), *(draw.randrange(len(raw) - 32) for _ in range(400))]  # the last tensor may end unpadded
    for cut in cuts:
        refused += not survives(write(tmp_path / "cut.gguf", raw[:cut]))
    assert refused == len(cuts) and survives(write(tmp_path / "cut.gguf", raw))


@pytest.mark.parametrize(("version", "files"), [(1, 500), (3, 2500)])
def test_changed_bytes_never_do_worse_than_a_refusal(tmp_path, version, files):
    raw = tiny_gguf.gguf_bytes(*tiny_gguf.llama(block_type="Q8_0", layers=1), version)
    head = raw.index(b"blk.0.ffn_down.weight") + 100  # beyond it there are only weights
    extremes = [0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 2**64 - 32]
    draw, outcomes = random.Random(7), []
    for _ in range(files):
        changed = bytearray(raw)
        for _ in range(draw.choice([1, 1, 1, 2, 8])):
            at = draw.choice([draw.randrange(head), draw.randrange(1200), draw.randrange(24)])
            if draw.random() < 0.5:
                changed[at] = draw.randrange(256)
            elif draw.random() < 0.5:
                changed[at : at + 8] = u64(draw.choice(extremes))
            else:
                del changed[at : at + draw.randrange(1, 9)]
        outcomes.append(survives(write(tmp_path / "changed.gguf", changed)))
    assert 0.1 < np.mean(outcomes) < 0.9  # both happen, so the test reaches both sides
