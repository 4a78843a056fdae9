"""Small llama models whose logits other programs have recorded (tests/data/llama_oracle.npz), written again from seeds.

Their tokenizer is left out: the recorded logits belong to token ids.
"""

from pathlib import Path

import numpy as np
import tiny_gguf

RECORDED = Path(__file__).parent / "data" / "llama_oracle.npz"

MULTI_HEAD = dict(width=64, heads=4, kv_heads=4, head_dim=16, layers=2, feed_forward=192, eps=1e-6)
GROUPED = dict(width=64, heads=4, kv_heads=2, head_dim=16, layers=7, feed_forward=96, eps=1e-5)
VOCAB, CONTEXT = 320, 64

MODELS = {  # name -> block type, and how the recorded model was made
    "F32": ("F32", MULTI_HEAD),
    "F16": ("F16", MULTI_HEAD),
    "Q4_0": ("Q4_0", MULTI_HEAD),
    "Q4_1": ("Q4_1", MULTI_HEAD),
    "Q8_0": ("Q8_0", MULTI_HEAD),
    "grouped": ("F32", GROUPED),
    "grouped-tied": ("F32", GROUPED | dict(tied=True)),
    "grouped-freqs": ("F32", GROUPED | dict(rope_freqs=True, rope_base=500000.0)),
    "grouped-wide-heads": ("F32", GROUPED | dict(head_dim=32)),
}

# What float32 arithmetic may differ by from the recorded logits (standard deviation about 3): the programs that wrote
# them keep F16 tables, and quantise activations where the weights are quantised.
TOLERANCE = {"F32": 0.01, "F16": 0.02, "Q4_0": 0.3, "Q4_1": 0.3, "Q8_0": 0.3}


def recorded(name):
    """The token ids int32 (n,) and the logits float32 (n, vocab) recorded for a model."""
    with np.load(RECORDED) as file:
        return file[f"{name}-tokens"], file[f"{name}-logits"]


def tolerance(name):
    return TOLERANCE[MODELS[name][0]]


def write(name, path, version=3):
    """Write the model to `path`; returns the path."""
    block_type, options = MODELS[name]
    weights = multi_head(**options) if options is MULTI_HEAD else _grouped(**options)
    metadata = {
        "general.architecture": "llama",
        "llama.context_length": CONTEXT,
        "llama.embedding_length": options["width"],
        "llama.block_count": options["layers"],
        "llama.feed_forward_length": options["feed_forward"],
        "llama.attention.head_count": options["heads"],
        "llama.attention.head_count_kv": options["kv_heads"],
        "llama.attention.key_length": options["head_dim"],
        "llama.attention.value_length": options["head_dim"],
        "llama.attention.layer_norm_rms_epsilon": options["eps"],
        "llama.rope.dimension_count": options["head_dim"],
        "llama.rope.freq_base": options.get("rope_base", 10000.0),
    }
    tensors = {
        name + ".weight": (array.astype(np.float32), block_type if array.ndim == 2 else "F32")
        for name, array in weights.items()
    }
    path.write_bytes(tiny_gguf.gguf_bytes(metadata, tensors, version))
    return path


# The order of the draws, and where they are rounded, are those of the recorded models: do not tidy them.


def _matrix(random, rows, columns, scale=1.0):
    return random.standard_normal((rows, columns)) * scale / np.sqrt(columns)


def _vector(random, n, mean=1.0):
    return mean + 0.2 * random.standard_normal(n)


def multi_head(width, layers, feed_forward, vocab=VOCAB, **_):
    """Name without its ending -> float64 array, in the order of the file."""
    random = np.random.default_rng(1234)
    weights = {
        "token_embd": random.standard_normal((vocab, width)),
        "output_norm": _vector(random, width),
        "output": _matrix(random, vocab, width, 3.0),
    }
    for i in range(layers):
        for name, scale in (("attn_q", 1.5), ("attn_k", 1.5), ("attn_v", 1.5), ("attn_output", 0.2)):
            weights[f"blk.{i}.{name}"] = _matrix(random, width, width, scale)
        weights[f"blk.{i}.ffn_gate"] = _matrix(random, feed_forward, width)
        weights[f"blk.{i}.ffn_down"] = _matrix(random, width, feed_forward, 0.2)
        weights[f"blk.{i}.ffn_up"] = _matrix(random, feed_forward, width)
        weights[f"blk.{i}.attn_norm"] = _vector(random, width)
        weights[f"blk.{i}.ffn_norm"] = _vector(random, width)
    return weights


def _grouped(width, heads, kv_heads, head_dim, layers, feed_forward, tied=False, rope_freqs=False, **_):
    random = np.random.default_rng(7)
    weights = {"token_embd": random.standard_normal((VOCAB, width)), "output_norm": _vector(random, width)}
    if not tied:
        weights["output"] = _matrix(random, VOCAB, width, 3.0)
    if rope_freqs:
        weights["rope_freqs"] = np.abs(_vector(random, head_dim // 2, 2.0))
    for i in range(layers):
        weights[f"blk.{i}.attn_norm"] = _vector(random, width)
        for name, n in (("attn_q", heads), ("attn_k", kv_heads), ("attn_v", kv_heads)):
            weights[f"blk.{i}.{name}"] = _matrix(random, n * head_dim, width, 1.5)
        weights[f"blk.{i}.attn_output"] = _matrix(random, width, heads * head_dim)
        weights[f"blk.{i}.ffn_norm"] = _vector(random, width)
        weights[f"blk.{i}.ffn_up"] = _matrix(random, feed_forward, width)
        weights[f"blk.{i}.ffn_gate"] = _matrix(random, feed_forward, width)
        weights[f"blk.{i}.ffn_down"] = _matrix(random, width, feed_forward)
    return weights
