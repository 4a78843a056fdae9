"""What a model has read of a saved conversation, in a file beside it: keys and values, so that it is not read again.

    {"format": "nbllm kept cache", "version": 1, "bytes": 123, "sha256": "...", ...}    filled up to 4096 bytes
    text    UTF-8, fenced as of `prompt.py`: all that was read and written until then
    ids     int32, little-endian: its tokens
    pages   as `runtime.cache.Cache.read` gives them, of the first `cached` of these

Written whole or not at all; reading makes numbers and text of it and nothing else, and what does not fit the model is
not used. The hash tells damage and not who wrote the file: it is to be trusted as far as the conversation is. Knows
nothing of templates and turns.
"""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nbllm import __version__
from nbllm.catalogue.places import fingerprint
from nbllm.errors import ConversationFileError, quoted, why
from nbllm.paths import expanded, opened, written
from nbllm.runtime.generation import common_prefix

FORMAT, VERSION = "nbllm kept cache", 1
HEADER = 4096  # bytes
ENDING = ".cache"
LARGEST = 1 << 26  # bytes of the text, and of the ids, at most


@dataclass(frozen=True)
class Copying:
    """Progress of writing or reading one, in bytes."""

    doing: str
    done: int
    total: int


class Unfit(Exception):
    """Why a kept cache is not used, in a few words; the conversation is then read again."""


def beside(path) -> Path:
    """Where the cache of the conversation is that is saved at `path`."""
    path = expanded(path, ConversationFileError)
    return path.with_name(path.name + ENDING)


def there(path) -> bool:
    """Whether there may be one; also asked of names that leave no room for another beside them."""
    return os.path.isfile(beside(path))


def write(path: Path, model, text: str, ids: list[int], stop):
    """Write what the model's engine has of these ids; a generator, which yields Copying.

    Parameters
    ----------
    path : Path
        Of the cache's own file.
    model : Model
    text : str
        What the ids came of, fenced.
    stop : StopFlag
        Stopped says so when it is set; nothing is left then.

    Raises
    ------
    ConversationFileError
        It cannot be written there, there is no room, or there is another file.
    """
    cache, engine = model.engine.cache, model.engine
    cached = common_prefix(engine.sequence.tokens, ids)
    forked = cache.fork(engine.sequence, cached)
    try:
        head = [text.encode("utf-8", "surrogatepass"), np.array(ids, "<i4").tobytes()]
        total = sum(map(len, head)) + len(forked.pages) * cache.layout["page_bytes"]
        if os.path.lexists(path) and _header(path).get("format") != FORMAT:
            raise ConversationFileError(f"{path} is there and is no kept cache; choose another name, or delete it")
        free = shutil.disk_usage(path.parent).free
        if HEADER + total > free:
            raise ConversationFileError(
                f"{path} cannot be written: it takes {total / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free on "
                "the disk; save without the cache, or make room"
            )
        header = {"format": FORMAT, "version": VERSION, "bytes": total, "text": len(head[0]), "ids": len(ids),
                  "cached": cached, "made": _made(model)}  # fmt: skip
        yield from _write(path, header, head, cache.read(forked), stop)
    except (OSError, ValueError) as error:
        raise ConversationFileError(f"{path} cannot be written: {why(error)}; save without the cache") from error
    finally:
        cache.release(forked)


def _write(path, header, head, pages, stop):
    with written(path) as file:
        file.write(bytes(HEADER))
        digest, done = hashlib.sha256(), 0
        for part in (part for parts in (head, pages) for part in parts):
            file.write(part)
            digest.update(part)
            done += len(part)
            yield Copying("saving the cache", done, header["bytes"])
            stop.look("Stopped; the conversation is saved, and its cache is not.")
        file.seek(0)
        file.write(json.dumps(header | {"sha256": digest.hexdigest()}).encode().ljust(HEADER - 1) + b"\n")


def read(path: Path, model, stop):
    """Put a kept cache into the model's engine; a generator, which yields Copying and returns the text and its ids.

    Raises
    ------
    Unfit
        It is of another model or other settings, or damaged, or cannot be read. The engine then has nothing of it.
    """
    engine = model.engine
    sequence = engine.begin()
    try:
        header = _header(path)
        _check(header, path.stat().st_size, model)
        sequence.tokens = []
        engine.cache.fit(sequence, header["cached"])
        with opened(path) as file:
            file.seek(HEADER)
            digest, done, finite = hashlib.sha256(), 0, True
            head = []
            for size in (header["text"], 4 * header["ids"]):
                head.append(file.read(size))
                digest.update(head[-1])
                done += size
            for number in range(len(sequence.pages)):
                data = np.fromfile(file, np.uint8, engine.cache.layout["page_bytes"])  # (page_bytes,)
                digest.update(data)
                finite &= engine.cache.write(sequence, number, data)
                done += data.size
                yield Copying("loading the cache", done, header["bytes"])
                stop.look("Stopped; the conversation is loaded, and its cache is not.")
        ids = np.frombuffer(head[1], "<i4").tolist()
        if digest.hexdigest() != header["sha256"]:
            raise Unfit("it is damaged: its hash is not that in its header")
        if not finite or not all(0 <= id < engine.vocab_size for id in ids):
            raise Unfit("it is damaged: a number in it is none")
        text = head[0].decode("utf-8", "surrogatepass")
    except (OSError, ValueError) as error:  # also where it became shorter meanwhile
        raise Unfit(f"it cannot be read: {why(error)}") from error
    sequence.tokens = ids[: header["cached"]]
    return text, ids


def _header(path) -> dict:
    """The header, or an empty dict where there is none."""
    try:
        with opened(path) as file:
            header = json.loads(file.read(HEADER))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    return header if isinstance(header, dict) else {}


def _check(header, size, model):
    """Whether it can be used: that all of it is there, and of this model; raises Unfit."""
    if header.get("format") != FORMAT:
        raise Unfit("its header is not that of a kept cache")
    if header.get("version") != VERSION:
        raise Unfit(f"it is of version {quoted(header.get('version'), 20)}, not {VERSION}")
    made = _made(model)
    if header.get("made") != made:
        theirs = header.get("made")
        alike = isinstance(theirs, dict) and theirs.keys() == made.keys()
        other = next(name for name in made if theirs[name] != made[name]) if alike else "layout"
        raise Unfit(f"it was made with another {OTHER.get(other, other)}")
    numbers = [header.get(name) for name in ("bytes", "text", "ids", "cached")]
    if any(type(number) is not int or number < 0 for number in numbers):
        raise Unfit("it is damaged: its header lacks a number")
    total, text, ids, cached = numbers
    pages = -(-cached // made["page"]) * made["page_bytes"]
    fit = text <= LARGEST and 4 * ids <= LARGEST
    if not (fit and 0 < cached <= ids and total == text + 4 * ids + pages and size == HEADER + total):
        raise Unfit(f"it is damaged: its header and its size of {size:,} bytes contradict each other")
    if cached >= model.context:
        raise Unfit(f"it has {cached:,} tokens, and the context is {model.context:,}")


# What is in `_made`, in the words of users.
OTHER = {"nbllm": "version of nbllm", "fingerprint": "model", "bits": "cache_bits", "rope": "context"}


def _made(model) -> dict:
    """All that keys and values depend on beside the tokens, and how they are laid out; not the processor."""
    angles = model.engine.weights.model.angles(model.context).reach(2)  # (2, ...) float32; some depend on the context
    rope = hashlib.sha256(np.ascontiguousarray(angles)).hexdigest()[:16]
    return {"nbllm": __version__, "fingerprint": fingerprint(model.path), "rope": rope, **model.engine.cache.layout}
