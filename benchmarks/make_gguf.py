"""Writes a GGUF file of a real model's shape with random weights, to measure speed with; values do not change it.

    python benchmarks/make_gguf.py 1b Q4_0 OUT.gguf

Its text is noise. The output matrix is Q6_K in files of Q4_0 and Q4_K, as llama.cpp's quantiser makes it; --output
names another type. Needs the repository: the container is written by the tests' own writer.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

from nbllm.formats.blocks import BLOCK_TYPES, LAYOUTS, OF_2023, dequantize

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
import tiny_gguf  # noqa: E402

SHAPES = {  # width, feed-forward, layers, heads, key/value heads, vocabulary
    "1b": (2048, 5632, 22, 32, 4, 32000),  # TinyLlama 1.1B
    "7b": (4096, 11008, 32, 32, 32, 32000),  # LLaMA 7B
}
CONTEXT = 4096
TYPES = {kind.name: kind for id, kind in BLOCK_TYPES.items() if kind.name in LAYOUTS and id not in OF_2023}
FILE_TYPES = {  # block type -> general.file_type, which some engines insist on
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K": 12, "Q4_K": 15,
    "Q5_K": 17, "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30, "BF16": 32,
}  # fmt: skip
OUTPUT = {"Q4_0": "Q6_K", "Q4_K": "Q6_K"}
MINIMA = {  # block type -> the field of the minimum, and how much of the scale makes the mean zero
    "Q4_1": ("m", -7.5), "Q5_1": ("m", -15.5), "Q2_K": ("dmin", 1.5), "Q4_K": ("dmin", 7.5), "Q5_K": ("dmin", 15.5),
}  # fmt: skip


def random_rows(random, kind, rows, columns):
    """A matrix of random blocks, uint8 (rows, row_bytes), that leaves activations about as large as they were."""
    deviation = columns**-0.5
    if kind.elements == 1:
        values = random.standard_normal((rows, columns), np.float32) * np.float32(deviation)
        return np.frombuffer(tiny_gguf.encode(values, kind.name), np.uint8).reshape(rows, -1)
    data = np.frombuffer(random.bytes(rows * columns // kind.elements * kind.bytes), np.uint8).reshape(rows, -1).copy()
    blocks = data.view(np.dtype(LAYOUTS[kind.name][0]))  # (rows, row_blocks) records

    def scale(blocks, d):
        blocks["d"] = d
        if kind.name in MINIMA:
            field, part = MINIMA[kind.name]
            blocks[field] = d * part

    sample = data[:16].copy()
    scale(sample.view(blocks.dtype), 1)
    scale(blocks, deviation / dequantize(kind, sample).std())
    return data


def tensors(shape, kind, output):
    """Name -> (shape, block type), in the file's order."""
    width, feed_forward, layers, heads, kv_heads, vocab = SHAPES[shape]
    kv = width // heads * kv_heads
    f32 = TYPES["F32"]
    yield "token_embd.weight", ((vocab, width), kind)
    for i in range(layers):
        for name, dims in {
            "attn_norm": (width,), "attn_q": (width, width), "attn_k": (kv, width), "attn_v": (kv, width),
            "attn_output": (width, width), "ffn_norm": (width,), "ffn_gate": (feed_forward, width),
            "ffn_up": (feed_forward, width), "ffn_down": (width, feed_forward),
        }.items():  # fmt: skip
            yield f"blk.{i}.{name}.weight", (dims, kind if len(dims) == 2 else f32)
    yield "output_norm.weight", ((width,), f32)
    yield "output.weight", ((vocab, width), output)


def metadata(shape, kind):
    width, feed_forward, layers, heads, kv_heads, vocab = SHAPES[shape]
    tokenizer = tiny_gguf.tokenizer_metadata()
    tokens = tokenizer["tokenizer.ggml.tokens"]
    more = [f"{i:05}" for i in range(vocab - len(tokens))]  # no text becomes these
    return {
        "general.architecture": "llama",
        "general.name": f"random {shape}",
        "general.file_type": FILE_TYPES[kind],
        "general.quantization_version": 2,
        "llama.context_length": CONTEXT,
        "llama.embedding_length": width,
        "llama.block_count": layers,
        "llama.feed_forward_length": feed_forward,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": width // heads,
        "llama.rope.freq_base": 10000.0,
        "llama.vocab_size": vocab,
        **tokenizer,
        "tokenizer.ggml.pre": "gpt-2",  # which old engines know too
        "tokenizer.ggml.tokens": tokens + more,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.token_type": np.append(tokenizer["tokenizer.ggml.token_type"], np.ones(len(more), np.int32)),
    }


def write(path, shape, kind, output=None, seed=0):
    """Write a file of matrices of the type named `kind`, the output's of that named `output`."""
    random = np.random.default_rng(seed)
    layout = dict(tensors(shape, TYPES[kind], TYPES[output or OUTPUT.get(kind, kind)]))
    sizes = {name: (dims, of.id, int(np.prod(dims)) // of.elements * of.bytes) for name, (dims, of) in layout.items()}
    with open(path, "wb") as file:
        file.write(tiny_gguf.gguf_head(metadata(shape, kind), sizes))
        for dims, of in layout.values():
            data = random_rows(random, of, *dims) if len(dims) == 2 else np.ones(dims, np.float32)
            file.write(data.tobytes() + bytes(-data.nbytes % 32))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("type", choices=TYPES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--output", choices=TYPES, metavar="TYPE", help="the block type of the output matrix")
    options = parser.parse_args()
    write(options.out, options.shape, options.type, options.output)


if __name__ == "__main__":
    main()
