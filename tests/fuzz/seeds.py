"""Small whole models, of every container and of every kind of architecture, for `damage.py` to damage.

Each is a list of the bytes of its parts; `NAMES` has the file names of the parts.
"""

import tempfile
from functools import cache
from pathlib import Path

import architectures
import models_of_2023
import numpy as np
import tiny_gguf
from models_of_2023 import Model

OLD_LLAMA = dict(vocab=8, width=32, heads=2, layers=1, feed_forward=96)
OLD_GPTJ = dict(vocab=320, width=32, heads=2, layers=1, feed_forward=128, context=64, rotated=8)
OLD = {
    "ggml": Model("ggml", None, 1, "Q4_0", OLD_LLAMA),
    "ggmf": Model("ggmf", 1, 1, "Q4_1", OLD_LLAMA | dict(width=64, feed_forward=192), parts=2),
    "ggjt1": Model("ggjt", 1, 1, "Q4_2", OLD_LLAMA),
    "ggjt3": Model("ggjt", 3, 3, "Q8_0", OLD_LLAMA),
    "gptj": Model("ggml", 0, 1, "Q5_0", OLD_GPTJ),
}
ARCHITECTURES = ("llama-yarn", "gemma3", "phi3-long", "stablelm-12b", "gpt2", "phi2", "qwen2moe", "qwen3moe")


def names(name):
    """The file names of a seed's parts."""
    if name == "split":
        return ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"]
    return ["old.bin", "old.bin.1"][: OLD[name].parts] if name in OLD else ["m.gguf"]


@cache
def seeds():
    """dict of str to list of bytes."""
    found = {
        name: [models_of_2023.old_bytes(model, part) for part in range(model.parts)] for name, model in OLD.items()
    }
    for version in (1, 2, 3):
        found[f"gguf{version}"] = [tiny_gguf.gguf_bytes(*tiny_gguf.llama(layers=1), version)]
    for kind in ("F16", "BF16", "Q4_1", "Q8_0"):
        found[kind] = [tiny_gguf.gguf_bytes(*tiny_gguf.llama(kind, layers=1, tied=False))]
    metadata, tensors = tiny_gguf.llama(layers=1)
    scores = np.arange(len(metadata["tokenizer.ggml.tokens"]), dtype=np.float32)
    spm = metadata | {"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": scores}
    found["spm"] = [tiny_gguf.gguf_bytes(spm, tensors)]
    found["bert"] = [tiny_gguf.gguf_bytes(metadata | {"tokenizer.ggml.model": "bert"}, tensors)]
    items, half = list(tensors.items()), len(tensors) // 2
    keys = [
        {"split.no": np.uint16(i), "split.count": np.uint16(2), "split.tensors.count": np.int32(len(items))}
        for i in (0, 1)
    ]
    found["split"] = [
        tiny_gguf.gguf_bytes(metadata | keys[0], dict(items[:half])), tiny_gguf.gguf_bytes(keys[1], dict(items[half:]))
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        for name in ARCHITECTURES:
            path = architectures.write(architectures.MODELS[name], Path(folder) / "m.gguf")
            found[name] = [path.read_bytes()]
    return found
