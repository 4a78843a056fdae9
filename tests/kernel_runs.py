"""What compiled kernels are put through to be compared with the uncompiled ones: small models,
and every single function.

The same runs are made here, in processes on emulated processors, and by the uncompiled kernels; what they give must
have the same bits.
"""

import importlib
from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import architectures
import numpy as np
import tiny_gguf

from nbllm.formats.blocks import BLOCK_TYPES, OF_2023
from nbllm.formats.open import open_model
from nbllm.runtime import ops
from nbllm.runtime.cache import Sequence
from nbllm.runtime.engine import Engine
from nbllm.runtime.events import StopFlag
from nbllm.runtime.packed import LAYOUTS

VOCAB = 40  # no multiple of sixteen; small, as the uncompiled kernels are slow
IDS = np.random.default_rng(1).integers(0, VOCAB, 200).tolist()

# name -> the model, and the tokens of each step. Steps of one token, of up to four and of more go different ways.
KINDS = {kind.name: kind for id, kind in BLOCK_TYPES.items() if kind.name in LAYOUTS and id not in OF_2023}
SMALL = {"width": 256, "heads": 2, "kv_heads": 1, "head_dim": 16, "feed_forward": 32}  # wide enough for all block types
RUNS = {name: (SMALL | {"block_type": name}, (1, 3, 7)) for name in KINDS}
RUNS["three heads to one"] = (
    {"block_type": "Q4_1", "heads": 6, "kv_heads": 2, "width": 96, "rope_freqs": True},
    (1, 3, 7),
)
RUNS["over the border of a page"] = ({"block_type": "F32", "heads": 1, "kv_heads": 1, "head_dim": 32}, (126, 1, 3, 5))
CACHE_BITS = {"with a cache of 8 bits": 8, "with a cache of 32 bits": 32}
for _name in CACHE_BITS:
    RUNS[_name] = RUNS["over the border of a page"]
# other architectures, which have every stage between them; some with windows that end within the first of two pages
_STAGES = {
    "gemma2": dict(window=100), "gemma3": dict(window=5, layers=6), "gpt2": {}, "stablelm-12b": {}, "qwen2moe": {},
}  # fmt: skip
for _name, _changed in _STAGES.items():
    RUNS[_name] = (replace(architectures.MODELS[_name], **{"layers": 2, "context": 256} | _changed), (1, 4))

# where blocks hold half-precision numbers; all their other bytes may be anything
HALVES = {
    "Q5_0": [0], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
    "IQ4_NL": [0], "IQ4_XS": [0],
}  # fmt: skip


def _any_blocks(kind):
    """In the place of an encoder: random bytes, with scales that keep the numbers small."""

    def encode(values):  # float32 (blocks, elements), of which only the number counts
        random = np.random.default_rng(len(values))
        blocks = random.integers(0, 256, (len(values), kind.bytes), dtype=np.uint8)
        for at in HALVES[kind.name]:
            scales = random.uniform(-1, 1, len(blocks)) / (16 * kind.elements**0.5)
            blocks[:, at : at + 2] = scales.astype("<f2").view(np.uint8).reshape(-1, 2)
        return blocks

    return kind.elements, encode


ENCODERS = {name: _any_blocks(KINDS[name]) for name in HALVES.keys() & KINDS.keys()}
TYPE_IDS = {name: KINDS[name].id for name in ENCODERS}


def write_model(folder, run):
    """Path of a run's model, written into a folder. Matrices too narrow for its block type are of Q8_0."""
    options = RUNS[run][0]
    if isinstance(options, architectures.Model):
        return architectures.write(options, folder / f"{run}.gguf")
    kind = KINDS[options["block_type"]]
    metadata, tensors = tiny_gguf.llama(layers=1, **options | {"block_type": "Q8_0"})
    metadata["tokenizer.ggml.tokens"] = metadata["tokenizer.ggml.tokens"][:VOCAB]
    values, block_type = tensors["token_embd.weight"]
    tensors["token_embd.weight"] = values[:VOCAB], block_type
    for name, (values, _) in tensors.items():
        if name.startswith("blk.") and values.ndim == 2 and values.shape[1] % kind.elements == 0:
            tensors[name] = values, kind.name
    path = folder / f"{run}.gguf"
    with mock.patch.dict(tiny_gguf.ENCODERS, ENCODERS), mock.patch.dict(tiny_gguf.TYPE_IDS, TYPE_IDS):
        path.write_bytes(tiny_gguf.gguf_bytes(metadata, tensors))
    return path


def logits(kernel, path, steps, threads=1, prepare=None):
    """float32 (n, VOCAB): the logits that a kernel gives to the last tokens, at most 32,
    of each step of the tokens IDS.

    prepare : called with the engine before its first step
    """
    with mock.patch.object(ops, "load", lambda: kernel), open_model(path) as gguf:
        engine = Engine(gguf, threads=threads, cache_bits=CACHE_BITS.get(path.stem, 16))
        if prepare:
            prepare(engine)
        out = []
        for tokens in steps:
            part = IDS[len(engine.tokens) : len(engine.tokens) + tokens]
            out.append(engine._step(part, min(tokens, 32), engine._stop)[0].copy())
        return np.concatenate(out)


def shared_logits(kernel, path, prepare=None):
    """float32 (9, VOCAB): the logits of one step of nine sequences that begin with the same pages."""
    begin, stop = IDS[:130], StopFlag()
    with mock.patch.object(ops, "load", lambda: kernel), open_model(path) as gguf:
        engine = Engine(gguf, threads=2, cache_bits=CACHE_BITS.get(path.stem, 16), room=4096)
    if prepare:
        prepare(engine)
    first = Sequence()
    engine.step([(first, begin, 1)], stop)
    forks = [engine.cache.fork(first, len(begin) - n) for n in range(9)]
    return engine.step([(fork, [n], 1) for n, fork in enumerate(forks)], stop)[0].copy()


@contextmanager
def uncompiled(fused):
    """The uncompiled kernels, computing as a processor does that has a fused multiply-add, or none."""
    kernel = ops.load("python")
    lanes = importlib.import_module("nbllm._kernels.python.lanes")
    with mock.patch.object(lanes, "FUSED", fused), np.errstate(all="ignore"):
        yield kernel


# every function of the vocabulary, by way of `lanes_probe`


def _every_exponent(random, n):
    return random.integers(0, 1 << 32, n, dtype=np.uint32).view(np.float32)


def _floats():
    """Three arrays: random bits, pairs of special values, and sums that nearly cancel."""
    random = np.random.default_rng(2)
    limits = np.finfo(np.float32)
    special = np.array(
        [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, limits.max, limits.tiny, -limits.smallest_subnormal], np.float32
    )
    near = random.standard_normal((3, 4096)).astype(np.float32)  # (a, b, c)
    steps = random.integers(-3, 4, near.shape[1]).astype(np.int32)
    near[2] = ((-near[0] * near[1]).view(np.int32) + steps).view(np.float32)
    pairs = np.stack([*(grid.ravel() for grid in np.meshgrid(special, special)), np.ones(special.size**2)])
    pairs = np.pad(pairs, ((0, 0), (0, -pairs.shape[1] % 16))).astype(np.float32)
    wild = np.stack([_every_exponent(random, 4096) for _ in range(3)])
    return np.concatenate([near, pairs, wild], axis=1)  # (3, n)


def _halfway():
    """Floats at, and beside, the middle between every two neighbours in half precision, and beyond the largest."""
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
    middle = (halves[:-1] + halves[1:]) / 2
    exact = np.concatenate([halves, middle, np.nextafter(middle, np.float32(0)), np.nextafter(middle, np.float32(1e6))])
    beyond = np.array([65519.996, 65520, 1e6, np.inf, np.nan, 1e-8, 2.9802322e-8, 2.980233e-8, 1e-42, 0], np.float32)
    both = np.concatenate([exact, beyond, -exact, -beyond])
    return np.pad(both, (0, -both.size % 16))


def probe(kernel):
    """Name to array: what a module made of `lanes_probe` gives for fixed inputs."""
    random = np.random.default_rng(3)
    a, b, c = (np.ascontiguousarray(values) for values in _floats())
    results = {"floats": np.zeros(13 * a.size, np.float32)}
    kernel.floats(a, b, c, results["floats"], a.size)

    wide = _halfway()
    n = 1 << 16  # all that half precision has
    narrowed = np.zeros(wide.size + -wide.size % n, np.float32)
    narrowed[: wide.size] = wide
    for i, part in enumerate(narrowed.reshape(-1, n)):
        results[f"widened {i}"] = np.zeros(2 * n, np.float32)
        results[f"narrowed {i}"] = np.zeros(2 * n, np.uint16)
        kernel.halves(np.arange(n, dtype=np.uint16), part, results[f"widened {i}"], results[f"narrowed {i}"], n)

    ties = np.arange(-64, 64) + 0.5
    v = np.concatenate([ties, random.uniform(-1.076e9, 1.085e9, 1024), random.uniform(-300, 300, 1024)]).astype(
        np.float32
    )
    w = random.integers(0, 256, v.size, dtype=np.uint8)
    results["integers"] = np.zeros(7 * v.size, np.float32)
    results["int8"] = np.zeros(v.size, np.int8)
    results["sums"] = np.zeros(v.size // 16, np.int32)
    kernel.integers(v, w, results["integers"], results["int8"], results["sums"], v.size)

    n = 16 * 64
    w = random.integers(-127, 128, 32 * n).astype(np.int8).view(np.uint8)
    x = random.integers(-127, 128, 2 * n).astype(np.int8)
    for i, (weight, activation) in enumerate(
        [(255, 127), (255, -127), (127, 127), (129, 127), (129, -127), (15, -127)]
    ):
        w[512 * i : 512 * (i + 1)], x[32 * i : 32 * (i + 1)] = weight, activation  # the largest sums
    results["products"] = np.zeros(5 * n, np.float32)
    kernel.products(w, x, results["products"], n)
    return results


def differences(got, expected):
    """For each name in one of two results whose arrays differ in any bit: how many elements do.
    NaNs are all the same."""
    found = {}
    for name in {**got, **expected}:
        a, b = got[name], expected[name]
        bits = f"u{a.itemsize}"
        same = a.view(bits) == b.view(bits)
        if a.dtype == np.float32:
            same |= np.isnan(a) & np.isnan(b)
        if a.dtype == np.uint16:  # half precision
            same |= (a & 0x7FFF > 0x7C00) & (b & 0x7FFF > 0x7C00)
        if not same.all():
            found[name] = int((~same).sum())
    return found
