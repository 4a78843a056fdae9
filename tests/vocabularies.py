"""Vocabularies in tests/data/vocabularies, in a compact form: what a model file says of its tokenizer, and back.

Scores are kept as their differences. Where the tokens stand in the order of the merges that made them, as is usual, a
merge is kept as the length of its left side.
"""

import json
import lzma
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "data" / "vocabularies"
KEY = "tokenizer.ggml."


def pack(metadata) -> bytes:
    """The `tokenizer.ggml.*` keys of a model file, compact."""
    keys = {key.removeprefix(KEY): value for key, value in metadata.items() if key.startswith(KEY)}
    tokens, merges = keys["tokens"], keys.pop("merges", None)
    if merges is not None:
        first = tokens.index(merges[0].replace(" ", ""))
        if [merge.replace(" ", "") for merge in merges] != tokens[first : first + len(merges)]:
            raise ValueError("the tokens are not in the order of their merges")
        keys["merges"] = [first, [merge.index(" ", 1) for merge in merges]]
    for name in ("scores", "token_type"):
        if name in keys:
            keys[name] = np.diff(keys[name], prepend=keys[name].dtype.type(0)).tolist()
    keys["name"] = metadata.get("general.name", "")
    text = json.dumps(keys, ensure_ascii=False, separators=(",", ":"))
    return lzma.compress(text.encode("utf-8", "surrogateescape"), preset=9 | lzma.PRESET_EXTREME)


def read(name, **changes):
    """The metadata of a vocabulary, its keys changed as said."""
    text = lzma.decompress((FOLDER / f"{name}.json.xz").read_bytes()).decode("utf-8", "surrogateescape")
    keys = json.loads(text)
    if "merges" in keys:
        first, lefts = keys["merges"]
        made = keys["tokens"][first : first + len(lefts)]
        keys["merges"] = [f"{token[:left]} {token[left:]}" for token, left in zip(made, lefts, strict=True)]
    for key, kind in (("scores", np.float32), ("token_type", np.int32)):
        if key in keys:
            keys[key] = np.cumsum(keys[key]).astype(kind)
    metadata = {KEY + key: value for key, value in (keys | changes).items() if key != "name"}
    return metadata | {"general.name": keys["name"]}
