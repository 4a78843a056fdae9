"""Kernels at their edges: odd sizes, no tokens, memory that begins anywhere and held anything, extreme numbers.

Here they show wrong results; `make test-sanitized` runs the same with kernels that are watched.
"""

import edges
import kernel_runs
import numpy as np
import pytest
from product_runs import KINDS, product, random_blocks

from nbllm.formats.blocks import dequantize
from nbllm.runtime import ops

VARIANTS = {
    variant.name: variant
    for variant in ops.VARIANTS
    if variant.name in ops.built() and all(ops.cpu_features()[need] for need in variant.needs)
}

pytestmark = pytest.mark.parametrize("variant", VARIANTS)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return lambda run: kernel_runs.write_model(folder, run)


@pytest.mark.parametrize("name", KINDS)
def test_products_of_odd_sizes_are_right(name, variant):
    random, kind, kernel = np.random.default_rng(3), KINDS[name], edges.Moved(ops.load(variant))
    for rows in edges.ROWS:
        blocks = random_blocks(kind, (rows, edges.columns(kind)), random)
        for tokens in edges.TOKENS:
            x = random.standard_normal((tokens, edges.columns(kind))).astype(np.float32)
            got, used = product(kernel, blocks, kind, x)
            right = used @ dequantize(kind, blocks).astype(np.float64).T
            assert got.shape == (tokens, rows) and np.allclose(
                got, right, rtol=0, atol=1e-5 * np.abs(right).max(initial=0)
            )


@pytest.mark.parametrize("run", kernel_runs.RUNS)
def test_bits_depend_neither_on_where_arrays_begin_nor_on_what_they_held(run, variant, model):
    kernel, path, steps = ops.load(variant), model(run), (*kernel_runs.RUNS[run][1], *edges.STEPS)
    plain = kernel_runs.logits(kernel, path, steps, threads=2)
    assert np.isfinite(plain).all()
    moved = kernel_runs.logits(edges.Moved(kernel), path, steps, threads=2, prepare=edges.soil)
    assert kernel_runs.differences({"": moved}, {"": plain}) == {}
    if run not in KINDS:
        plain = kernel_runs.shared_logits(kernel, path)
        assert np.array_equal(kernel_runs.shared_logits(edges.Moved(kernel), path, edges.soil), plain)


@pytest.mark.parametrize("run", [run for run in kernel_runs.RUNS if run not in KINDS])
def test_a_step_of_no_tokens_changes_nothing(run, variant, model):
    kernel, path = ops.load(variant), model(run)
    plain = kernel_runs.logits(kernel, path, edges.STEPS, threads=2)
    assert np.array_equal(kernel_runs.logits(edges.Emptied(kernel), path, edges.STEPS, threads=2), plain)


@pytest.mark.parametrize("name", KINDS)
def test_extreme_numbers_give_what_they_give_the_uncompiled_kernels(name, variant):
    kind, blocks, finite = KINDS[name], edges.extreme_blocks(name), edges.extreme_activations(name, edges.FINITE)
    with kernel_runs.uncompiled(VARIANTS[variant].fused) as kernel:
        right, _ = product(kernel, blocks, kind, finite)
    assert np.isnan(right).any() and np.isfinite(right).any()
    got, _ = product(edges.Moved(ops.load(variant)), blocks, kind, finite)
    assert kernel_runs.differences({"": got}, {"": right}) == {}


@pytest.mark.parametrize("name", KINDS)
def test_a_token_that_is_no_number_stays_none_and_changes_no_other(name, variant):
    kind, blocks, finite = KINDS[name], edges.extreme_blocks(name), edges.extreme_activations(name, edges.FINITE)
    wrong = edges.extreme_activations(name, edges.NOT_FINITE)
    kernel = edges.Moved(ops.load(variant))
    alone, _ = product(kernel, blocks, kind, finite)
    together, _ = product(kernel, blocks, kind, np.concatenate([wrong, finite]))
    assert not np.isfinite(together[: len(wrong)]).any()
    assert kernel_runs.differences({"": together[len(wrong) :]}, {"": alone}) == {}
