"""A packed matrix times activations is what its dequantised weights give, for every block type,
with one token and with many."""

import numpy as np
import pytest
from product_runs import KINDS, product, random_blocks

from nbllm.formats.blocks import dequantize
from nbllm.runtime import ops

ROWS, COLUMNS, TOKENS = 40, 512, 11  # rows that do not fill a group, tokens that do not fill a tile


@pytest.mark.parametrize("name", KINDS)
def test_a_product_is_that_of_the_dequantised_weights(name):
    random, kernel = np.random.default_rng(3), ops.load()
    blocks = random_blocks(KINDS[name], (ROWS, COLUMNS), random)
    x = random.standard_normal((TOKENS, COLUMNS)).astype(np.float32)
    got, used = product(kernel, blocks, KINDS[name], x)
    assert np.abs(used - x).max() <= np.abs(x).max() / 127 / 2 * 1.001
    right = used @ dequantize(KINDS[name], blocks).astype(np.float64).T
    assert np.abs(got - right).max() < 1e-6 * np.abs(right).max()
    alone, _ = product(kernel, blocks, KINDS[name], x[4:5])
    assert np.array_equal(alone[0], got[4])
