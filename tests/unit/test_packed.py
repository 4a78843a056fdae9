"""The packed layouts: sixteen rows side by side, nothing lost, and the rows of the file found in them again."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
from tiny_gguf import ENCODERS, gguf_bytes

from nbllm.errors import ModelFileError
from nbllm.formats.blocks import BLOCK_TYPES
from nbllm.formats.open import open_model
from nbllm.runtime import packed
from nbllm.runtime.packed import Packer, rows


# Of what random blocks of each type become in this layout; see the last test.
LAYOUT, DIGESTS = 1, {
    "F32": "373ba785bc60984b", "F16": "c289ac159de7c1f3", "BF16": "c289ac159de7c1f3", "Q4_0": "c32c356c95f33ab5",
    "Q4_1": "69ef1d8923995cef", "Q4_2": "454bf10cfca73dd3", "Q4_3": "ce7e66b01a8555a2",
    "Q5_0": "f1f800db3928ca9c", "Q5_1": "f5b46b7caad94302", "Q8_0": "1fd989bea16a3d58",
    "Q2_K": "53eb08022dd568b8", "Q3_K": "fae770d56bb154f1", "Q4_K": "424f320b24dbdf30", "Q5_K": "5dd6f8e9687ec955",
    "Q6_K": "378594f238dd86e3", "IQ4_NL": "c32c356c95f33ab5", "IQ4_XS": "5ce4ef254d95e23d",
}  # fmt: skip


@pytest.fixture
def tensor(tmp_path):
    """Opens a file with one random tensor of this shape and block type."""

    def tensor(shape, block_type):
        values = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
        path = tmp_path / f"{block_type}.gguf"
        path.write_bytes(gguf_bytes({}, {"t": (values, block_type)}))
        return open_model(path).tensors["t"]

    return tensor


def pack(packer):
    """uint8 (size,)"""
    return np.concatenate([piece.copy() for piece in packer.pack()])


@pytest.mark.parametrize("block_type", ENCODERS)
def test_the_rows_of_the_file_come_back_in_any_order_and_number(tensor, monkeypatch, block_type):
    source = tensor((75, 96), block_type)  # the last of five groups is not full
    packer = Packer()
    packer.vector(np.ones(3, np.float32))
    matrix = packer.matrix(source)
    for piece_bytes in (1, 2 * matrix.group_bytes, 1 << 18):
        monkeypatch.setattr(packed, "PIECE", piece_bytes)
        data = pack(packer)
        assert data.size == packer.size
        for ids in (np.arange(75), np.array([74]), np.array([3, 3, 70, 0])):
            np.testing.assert_array_equal(rows(data, matrix, ids), source.data[ids])


@pytest.mark.parametrize(("block_type", "parts"), [("Q4_0", [(0, 2, 2), (2, 18, 4)]), ("F16", [(0, 2, 2)])])
def test_words_of_sixteen_rows_stand_side_by_side_part_after_part(tensor, block_type, parts):
    source = tensor((16, 96), block_type)
    packer = Packer()
    packer.matrix(source)
    data, at = pack(packer), 0
    blocks = source.data.reshape(16, -1, source.block_type.bytes)
    for start, stop, width in parts:
        at += -at % 64
        for block in range(blocks.shape[1]):
            for word in range(start, stop, width):
                for row in range(16):
                    np.testing.assert_array_equal(data[at : at + width], blocks[row, block, word : word + width])
                    at += width
    assert at == packer.size


def test_rows_can_be_packed_in_another_order(tensor):
    source, order = tensor((48, 64), "Q8_0"), np.random.default_rng(2).permutation(48)
    packer = Packer()
    matrix = packer.matrix(source, order)
    np.testing.assert_array_equal(rows(pack(packer), matrix, np.arange(48)), source.data[order])


def test_a_group_that_is_not_full_ends_in_zeros(tensor):
    packer = Packer()
    packer.matrix(tensor((17, 32), "F32"))
    data = pack(packer).view(np.float32).reshape(2, 32, 16)  # (groups, columns, rows)
    assert data[1, :, 0].all() and not data[1, :, 1:].any()


def test_vectors_and_matrices_lie_at_whole_cache_lines(tensor):
    packer = Packer()
    first = packer.vector([1, 2, 3])
    matrix = packer.matrix(tensor((16, 32), "Q8_0"))
    last = packer.vector([4])
    assert all(place.offset % 64 == 0 for place in (first, matrix, last))
    data = pack(packer)
    assert data[: 3 * 4].view(np.float32).tolist() == [1, 2, 3] and data[last.offset :].view(np.float32)[0] == 4


@pytest.mark.parametrize("kind", [kind for kind in BLOCK_TYPES.values() if kind.name in packed.LAYOUTS], ids=str)
def test_whoever_changes_a_layout_gives_it_another_number(kind):
    """Caches hold what was packed before. When this fails, raise `packed.LAYOUT` and record the new digests here."""
    data = np.random.RandomState(0).randint(0, 256, 40 * 512 // kind.elements * kind.bytes).astype(np.uint8)
    source = SimpleNamespace(
        name="t", shape=(40, 512), block_type=kind, nbytes=data.size, read=lambda start, stop: data[start:stop]
    )
    packer = Packer()
    packer.matrix(source)
    assert (packed.LAYOUT, hashlib.sha256(pack(packer)).hexdigest()[:16]) == (LAYOUT, DIGESTS[kind.name])


def test_what_no_kernel_computes_is_refused_by_name(tensor):
    with pytest.raises(ModelFileError, match="'t'.*16 columns"):
        Packer().matrix(tensor((16, 16), "F32"))
