"""Dequantisation equals, bit for bit, that of the `gguf` package for every block type that this knows, and what a plain
loop over the elements gives for the others."""

import gguf
import numpy as np
import pytest

from nbllm.errors import ModelFileError
from nbllm.formats.blocks import BLOCK_TYPES, LAYOUTS, OF_2023, dequantize

BY_NAME = {block_type.name: block_type for block_type in BLOCK_TYPES.values()}
KNOWN_TO_GGUF = set(LAYOUTS) - {BLOCK_TYPES[id].name for id in OF_2023}


def test_sizes_are_those_of_the_gguf_package():
    ours = {block_type.name: (id, block_type.elements, block_type.bytes) for id, block_type in BLOCK_TYPES.items()}
    for kind, (elements, size) in gguf.GGML_QUANT_SIZES.items():
        if kind.name != "Q8_1":  # two halves since 2024, two floats before; in no file
            assert ours.get(kind.name) == (kind.value, elements, size), kind.name


def test_all_types_of_the_gguf_package_that_are_not_lookup_grids_are_covered():
    assert KNOWN_TO_GGUF == set(
        "F32 F16 BF16 Q4_0 Q4_1 Q5_0 Q5_1 Q8_0 Q2_K Q3_K Q4_K Q5_K Q6_K IQ4_NL IQ4_XS".split()
    )


@pytest.mark.parametrize("name", sorted(KNOWN_TO_GGUF))
def test_values_are_bit_equal_to_the_gguf_package(name):
    block_type = BY_NAME[name]
    rows = np.random.default_rng(block_type.id).integers(0, 256, (37, 2048 * block_type.bytes // block_type.elements))
    rows = rows.astype(np.uint8)
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[name])
    values = dequantize(block_type, rows)
    assert values.dtype == np.float32 and values.shape == (37, 2048)
    assert (values.view(np.uint32) == expected.view(np.uint32)).all()  # bytes at random, so NaN and infinities too


@pytest.mark.parametrize(("name", "offset", "minimum"), [("Q4_2", 8, False), ("Q4_3", 0, True)])
def test_values_of_2023_are_those_of_a_loop(name, offset, minimum):
    kind = BY_NAME[name]
    rows = np.random.default_rng(kind.id).integers(0, 256, (50, 8 * kind.bytes)).astype(np.uint8)
    expected = np.empty((50, 8 * 16), np.float32)
    with np.errstate(all="ignore"):
        for block, values in zip(rows.reshape(-1, kind.bytes), expected.reshape(-1, 16), strict=True):
            d, *m = block[:-8].view("<f2").astype(np.float32)
            for j, byte in enumerate(block[-8:]):
                for i, code in enumerate((byte & 15, byte >> 4)):
                    product = np.float32(int(code) - offset) * d
                    values[2 * j + i] = product + m[0] if minimum else product
    values, numbers = dequantize(kind, rows), ~np.isnan(expected)
    assert values.dtype == np.float32 and np.isnan(values[~numbers]).all()
    assert (values[numbers].view(np.uint32) == expected[numbers].view(np.uint32)).all()


def test_leading_dimensions_are_kept_and_rows_are_independent():
    rows = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 36)).astype(np.uint8)
    values = dequantize(BY_NAME["Q4_0"], rows)
    assert values.shape == (2, 3, 5, 64)
    assert np.array_equal(values[1, 2, 4], dequantize(BY_NAME["Q4_0"], rows[1, 2, 4]), equal_nan=True)


def test_a_view_that_is_not_contiguous_gives_the_same_values():
    rows = np.random.default_rng(0).integers(0, 256, (6, 68)).astype(np.uint8)
    assert np.array_equal(
        dequantize(BY_NAME["Q8_0"], rows[::2]), dequantize(BY_NAME["Q8_0"], rows[::2].copy()), equal_nan=True
    )


def test_a_type_without_a_layout_is_refused_by_name():
    with pytest.raises(ModelFileError, match="IQ2_XXS"):
        dequantize(BY_NAME["IQ2_XXS"], np.zeros((1, 66), np.uint8))
