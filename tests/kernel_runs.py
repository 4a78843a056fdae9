"""What compiled kernels are put through to be compared with the uncompiled ones: small models, and every single function.

The same runs are made here, in processes on emulated processors, and by the uncompiled kernels; what they give must have
the same bits.
"""

from unittest import mock

import numpy as np
import tiny_gguf

from nbllm.formats.gguf import open_gguf
from nbllm.runtime import ops
from nbllm.runtime.engine import Engine
from nbllm.runtime.packed import LAYOUTS

VOCAB = 40  # no multiple of sixteen; small, as the uncompiled kernels are slow
IDS = np.random.default_rng(1).integers(0, VOCAB, 200).tolist()

# name -> the model, and the tokens of each step. Steps of one token, of up to four and of more go different ways.
RUNS = {kind: ({"block_type": kind}, (1, 3, 7)) for kind in LAYOUTS}
RUNS["three heads to one"] = ({"block_type": "Q4_1", "heads": 6, "kv_heads": 2, "width": 96, "rope_freqs": True}, (1, 3, 7))
RUNS["over the border of a tile"] = ({"block_type": "F32", "heads": 1, "kv_heads": 1, "head_dim": 32}, (126, 1, 3, 5))


def write_model(folder, run):
    """Path of a run's model, written into a folder."""
    metadata, tensors = tiny_gguf.llama(layers=1, **RUNS[run][0])
    metadata["tokenizer.ggml.tokens"] = metadata["tokenizer.ggml.tokens"][:VOCAB]
    values, block_type = tensors["token_embd.weight"]
    tensors["token_embd.weight"] = values[:VOCAB], block_type
    path = folder / f"{run}.gguf"
    path.write_bytes(tiny_gguf.gguf_bytes(metadata, tensors))
    return path


def logits(kernel, path, steps, threads=1):
    """float32 (n, VOCAB): the logits that a kernel gives to the last tokens, at most 32, of each step of the tokens IDS."""
    with mock.patch.object(ops, "load", lambda: kernel), open_gguf(path) as gguf:
        engine = Engine(gguf, threads=threads)
        out = []
        for tokens in steps:
            part = IDS[len(engine.tokens) : len(engine.tokens) + tokens]
            out.append(engine._step(part, min(tokens, 32), engine._stop).copy())
        return np.concatenate(out)


def every_run(kernel, folder):
    """Name of each run to its logits."""
    return {run: logits(kernel, write_model(folder, run), steps) for run, (_, steps) in RUNS.items()}
