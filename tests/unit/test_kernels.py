"""The compiled kernels give the very bits of the uncompiled ones,
and the bits of a token do not depend on its company."""

import importlib
from functools import cache
from pathlib import Path

import build_kernel
import kernel_runs
import numpy as np
import pytest
from kernel_runs import uncompiled

from nbllm.formats.open import open_model
from nbllm.runtime import ops, program
from nbllm.runtime.cache import Sequence
from nbllm.runtime.engine import Engine
from nbllm.runtime.events import StopFlag

VARIANTS = {
    variant.name: variant
    for variant in ops.VARIANTS
    if variant.name in ops.built() and all(ops.cpu_features()[need] for need in variant.needs)
}
PROBE = Path(kernel_runs.__file__).with_name("lanes_probe.py")


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")

    @cache
    def run(name, fused):
        with uncompiled(fused) as kernel:
            path = kernel_runs.write_model(folder, name)
            return path, kernel_runs.logits(kernel, path, kernel_runs.RUNS[name][1])

    return run


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("run", kernel_runs.RUNS)
def test_steps_have_the_bits_of_the_uncompiled_kernels(run, variant, expected):
    path, right = expected(run, VARIANTS[variant].fused)
    got = kernel_runs.logits(ops.load(variant), path, kernel_runs.RUNS[run][1])
    assert np.isfinite(got).all() and got.std() > 0.1
    assert np.array_equal(got, right), np.abs(got - right).max()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("run", kernel_runs.RUNS)
def test_a_tokens_bits_depend_neither_on_steps_nor_on_threads(run, variant, tmp_path):
    kernel, path = ops.load(variant), kernel_runs.write_model(tmp_path, run)
    one_by_one = kernel_runs.logits(kernel, path, [1] * 150)
    for threads, steps in (
        (1, [32] * 4 + [22]),
        (2, [1] * 150),
        (3, [2, 3, 4, 5, 27, 31, 32, 21, 2, 1, 7, 15]),
        (2, [4, 30, 1, 32] * 2),
    ):
        got = kernel_runs.logits(kernel, path, steps, threads)
        assert np.array_equal(got, one_by_one[: len(got)]), (threads, steps)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("run", [run for run in kernel_runs.RUNS if run not in kernel_runs.KINDS])
def test_a_tokens_bits_do_not_depend_on_who_begins_with_the_same_pages(run, variant, tmp_path, monkeypatch):
    monkeypatch.setattr(ops, "load", lambda: importlib.import_module(f"nbllm._kernels.{variant}.step"))
    random, stop, bits = np.random.default_rng(5), StopFlag(), kernel_runs.CACHE_BITS.get(run, 16)
    with open_model(kernel_runs.write_model(tmp_path, run)) as gguf:
        engine, alone = Engine(gguf, threads=2, cache_bits=bits, room=4096), Engine(gguf, threads=1, cache_bits=bits)
    begin = random.integers(0, engine.vocab_size, min(140, engine.context - 10)).tolist()
    first = Sequence()
    engine.step([(first, begin, 1)], stop)
    sequences = [engine.cache.fork(first, len(begin) - 1 - n) for n in range(9)]
    texts = [
        [*sequence.tokens, *random.integers(0, engine.vocab_size, 2 + n % 3)] for n, sequence in enumerate(sequences)
    ]
    expected = [alone.logits(text) for text in texts]
    for _ in range(4):
        going = [n for n in range(9) if len(sequences[n].tokens) < len(texts[n])]
        if going:
            logits, _ = engine.step([(sequences[n], [texts[n][len(sequences[n].tokens)]], 1) for n in going], stop)
            for n, row in zip(going, logits, strict=True):
                assert np.array_equal(row, expected[n][len(sequences[n].tokens) - 1]), n


@pytest.fixture(scope="module")
def probe_text(tmp_path_factory):
    return build_kernel.translate(PROBE, tmp_path_factory.mktemp("probe"))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_function_has_the_bits_of_its_meaning(variant, probe_text):
    compiled = build_kernel.load(build_kernel.compile(probe_text, variant, probe_text.parent))
    with uncompiled(VARIANTS[variant].fused):
        right = kernel_runs.probe(build_kernel.load(PROBE))
    assert kernel_runs.differences(kernel_runs.probe(compiled), right) == {}


def test_the_probe_uses_the_whole_vocabulary_but_for_threads_width_and_hints():
    lanes = importlib.import_module("nbllm._kernels.python.lanes")  # which the probe imports as `lanes`
    functions = {name for name, value in vars(lanes).items() if callable(value) and not name.startswith("_")}
    used = set(vars(build_kernel.load(PROBE)))
    assert functions - used == {"poll", "thread", "team", "take", "barrier", "wide", "soon"}


def test_the_engine_and_the_kernels_have_the_same_numbers():
    of_kernels = {}
    for name in ("attention", "elementwise", "experts", "paged", "step"):
        of_kernels |= vars(importlib.import_module(f"nbllm._kernels.python.{name}"))
    alone = {"AHEAD", "GRAIN"}  # of which the engine knows nothing
    numbers = {name: value for name, value in of_kernels.items() if name.isupper() and name not in alone}
    assert numbers == {name: getattr(program, name) for name in numbers}
    assert {"MIX", "SOFT_CAP", "PAGE", "PEAK", "SIDE", "MOST_QUERIES"} <= numbers.keys()
    for head_dim in (32, 80, 256):
        assert of_kernels["scratch"](head_dim) == program.scratch(head_dim)
