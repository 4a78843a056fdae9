"""Damages model files with a knowledge of where their fields are: lengths, counts, types, shapes, offsets, values,
weights.

Reads containers with code of its own, which shares nothing with `nbllm.formats`. All is drawn from a number, so that a
case can be made again from it.
"""

import random
import struct
from dataclasses import dataclass
from functools import lru_cache

from fuzz.seeds import seeds

EXTREMES = (0, 1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 255, 256, 1023, 1025, 2**16, 2**20, 2**24, 2**31 - 1, 2**31,
            2**32 - 1, 2**32, 2**61 + 1, 2**63 - 1, 2**63, 2**64 - 32, 2**64 - 1)  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 3e38, -3e38, float("inf"), float("-inf"), float("nan"))
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # GGUF value type -> bytes
TIGHT = ("tensors", "keys", "dimensions", "shape", "offset")  # a change of one of these is always a contradiction


@dataclass(frozen=True)
class Field:
    """A number in a file's header: what it is, where it is, its bytes, and of a metadata value its GGUF type."""

    what: str
    at: int
    width: int
    kind: int | None = None


@dataclass(frozen=True)
class Case:
    """A damaged model.

    Attributes
    ----------
    seed : str
        Which model was damaged.
    parts : list of bytes
    story : list of str
        What was done to it.
    wrong : bool
        Whether it contradicts itself, so that it must be refused.
    """

    seed: str
    parts: list
    story: list
    wrong: bool


@lru_cache(32)
def fields(raw):
    """The fields of a file: list of Field; and where its tensors' bytes begin, as near as matters here.

    Of one that is damaged, as far as it makes sense.
    """
    if raw[:4] != b"GGUF":
        return _old_fields(raw)
    found = [Field("version", 4, 4)]
    try:
        return found, _gguf_fields(raw, found)
    except (EOFError, KeyError):
        return found, found[-1].at + found[-1].width


def _gguf_fields(raw, found):
    """Adds to `found` what is found; returns where the tensors' bytes begin."""
    at, wide = 8, 4 if raw[4:8] == struct.pack("<I", 1) else 8

    def number(what, width, kind=None):
        nonlocal at
        if at + width > len(raw):
            raise EOFError
        found.append(Field(what, at, width, kind))
        at += width
        return int.from_bytes(raw[at - width : at], "little")

    def text(what):
        nonlocal at
        size = number(what, wide)
        at += size

    tensors, keys = number("tensors", wide), number("keys", wide)
    for _ in range(keys):
        text("length of a key")
        kind = number("value type", 4)
        if kind == 8:
            text("length of a text")
        elif kind == 9:
            element, count = number("element type", 4), number("length of an array", wide)
            for _ in range(count if element == 8 else 0):
                text("length of a string")
            at += 0 if element == 8 else count * SIZES[element]
        else:
            number("value", SIZES[kind], kind)
    for _ in range(tensors):
        text("length of a name")
        for _ in range(number("dimensions", 4)):
            number("shape", wide)
        number("block type", 4)
        number("offset", 8)
    return at


def _old_fields(raw):
    """Header and the records; the vocabulary's lengths are met by the blind damages."""
    count = 9 if raw[:4] == b"lmgg" else 8
    found = [Field("header", 4 * i, 4) for i in range(1, count)]
    names = (b"tok_embeddings.weight", b"layers.0.", b"norm.weight", b"output.weight", b"transformer.", b"lm_head.")
    first = len(raw)
    for name in names:
        at = raw.find(name)
        while at >= 0:
            if at >= 20:
                found += [Field("record", at - back, 4) for back in (4, 8, 12, 16, 20)]
                first = min(first, at + 64)
            at = raw.find(name, at + 1)
    return found, min(first, len(raw))


def case(number):
    """The damaged model of this number."""
    draw = random.Random(number)
    seed = draw.choice(list(seeds()))
    parts = [bytearray(raw) for raw in seeds()[seed]]
    story, wrong = [], False
    for _ in range(draw.choice((1, 1, 1, 1, 2, 4))):
        i = draw.randrange(len(parts))
        before = bytes(parts[i])
        known = fields(before) if before == seeds()[seed][i] else None
        told, contradicts = (draw.choice(AIMED) if known and draw.random() < 0.8 else draw.choice(BLIND))(
            draw, parts[i], known
        )
        wrong = contradicts and bytes(parts[i]) != before if not story else False  # two changes may undo each other
        story.append(f"{told}" + (f" of part {i}" if len(parts) > 1 else ""))
    return Case(seed, [bytes(part) for part in parts], story, wrong)


def damaged(draw, raw):
    """A file, which may be damaged already, damaged once more: bytes."""
    raw, known = bytearray(raw), fields(bytes(raw))
    draw.choice((*AIMED, _replace_any) if draw.random() < 0.8 else BLIND)(draw, raw, known)
    return bytes(raw)


# Each damages a bytearray, and returns what was done and whether the file now contradicts itself.


def _set_field(draw, raw, known):
    field = draw.choice(known[0])
    limit = 1 << 8 * field.width
    old = int.from_bytes(raw[field.at : field.at + field.width], "little")
    if field.kind in (6, 12):
        value = draw.choice(FLOATS)
        new = struct.pack("<f" if field.kind == 6 else "<d", value)
    else:
        near = (old - 1, old + 1, old * 2, old // 2, -old, old ^ 1 << draw.randrange(8 * field.width))
        value = draw.choice((*EXTREMES, *near)) % limit
        new = value.to_bytes(field.width, "little")
    raw[field.at : field.at + field.width] = new
    return f"{field.what} at {field.at}: {old} becomes {value}", field.what in TIGHT


def _retype(draw, raw, known):
    """A metadata value of one type becomes one of another type of the same size."""
    same = {4: (5, 6), 5: (4, 6), 6: (4, 5), 10: (11, 12), 2: (3,), 7: (0, 1)}
    places = [(a, b) for a, b in zip(known[0], known[0][1:]) if a.what == "value type" and b.kind in same]
    if not places:
        return _set_field(draw, raw, known)
    kind, value = draw.choice(places)
    raw[kind.at] = new = draw.choice(same[value.kind])
    return f"value type at {kind.at} becomes {new}", False


def _replace_value(draw, raw, known):
    """A metadata number becomes a text, an array or a float that is none."""
    places = [(a, b) for a, b in zip(known[0], known[0][1:]) if a.what == "value type" and b.kind is not None]
    if not places or raw[4] == 1:
        return _set_field(draw, raw, known)
    kind, value = draw.choice(places)
    raw[kind.at : value.at + value.width] = new = _value(draw)
    return f"value at {kind.at} becomes {new[:24]!r}", False


def _value(draw):
    """A GGUF value that is seldom what is wanted, with its type before it."""
    return draw.choice((
        struct.pack("<IQ", 8, 3) + b"abc", struct.pack("<IIQ", 9, 4, 0), struct.pack("<IIQ2I", 9, 4, 2, 1, 2),
        struct.pack("<IIQQ", 9, 8, 1, 1) + b"a", struct.pack("<If", 6, draw.choice(FLOATS)),
        struct.pack("<I?", 7, True), struct.pack("<Id", 12, draw.choice(FLOATS)),
        struct.pack("<IQ", 10, draw.choice(EXTREMES)),
    ))  # fmt: skip


def _replace_any(draw, raw, known):
    """The same of a text or an array, too."""
    kinds = [field for field in known[0] if field.what == "value type"]
    ends = [field.at for field in known[0] if field.what in ("length of a key", "length of a name")]
    if not kinds or raw[4] == 1:
        return _set_field(draw, raw, known)
    kind = draw.choice(kinds)
    end = min((at for at in ends if at > kind.at), default=len(raw))
    raw[kind.at : end] = new = _value(draw)
    return f"value at {kind.at} becomes {new[:24]!r}", False


def _weights(draw, raw, known):
    """Some weights or scales become no numbers, infinite, or tiny."""
    start = known[1]
    pattern = draw.choice(
        (b"\xff\xff", b"\x00\x7c", b"\x00\xfc", b"\x01\x00", b"\x00\x00\x80\x7f", b"\x00\x00\xc0\x7f", b"\0\0")
    )
    begin = draw.randrange(start, len(raw)) if start < len(raw) else start
    size = min(draw.choice((2, 4, 64, 4096, len(raw))), len(raw) - begin)
    raw[begin : begin + size] = (pattern * (size // len(pattern) + 1))[:size]
    return f"weights from {begin} become {size} bytes of {pattern!r}", False


def _key(draw, raw, known):
    """A key or a name changes in a letter."""
    places = [f for f in known[0] if f.what in ("length of a key", "length of a name")]
    field = draw.choice(places) if places else Field("none", 0, 0)
    begin = field.at + field.width
    size = min(int.from_bytes(raw[field.at : begin], "little"), len(raw) - begin)
    if size < 1:
        return _set_field(draw, raw, known)
    at = begin + draw.randrange(size)
    raw[at] ^= 1 << draw.randrange(8)
    return f"a letter of a key or name at {at}", field.what == "length of a name"


def _flip(draw, raw, known):
    at = draw.randrange(len(raw)) if raw else 0
    raw[at : at + 1] = bytes([draw.randrange(256)])
    return f"byte {at}", False


def _extreme(draw, raw, known):
    at, width = draw.randrange(len(raw) + 1), draw.choice((1, 2, 4, 8))
    raw[at : at + width] = (draw.choice(EXTREMES) % (1 << 8 * width)).to_bytes(width, "little")
    return f"{width} bytes at {at}", False


def _delete(draw, raw, known):
    at, size = draw.randrange(len(raw) + 1), draw.choice((1, 2, 4, 8, 32, 100))
    del raw[at : at + size]
    return f"{size} bytes at {at} are gone", False


def _insert(draw, raw, known):
    at = draw.randrange(len(raw) + 1)
    raw[at:at] = draw.randbytes(draw.choice((1, 4, 8, 32)))
    return f"bytes put in at {at}", False


def _cut(draw, raw, known):
    at = draw.randrange(len(raw) + 1)
    last = len(raw) - 32  # the filling of the last tensor may be missing
    del raw[at:]
    return f"cut at {at}", at < last


def _move(draw, raw, known):
    source, at, size = draw.randrange(len(raw) + 1), draw.randrange(len(raw) + 1), draw.choice((4, 8, 24, 200))
    raw[at : at + size] = raw[source : source + size]
    return f"{size} bytes from {source} over those at {at}", False


def _splice(draw, raw, known):
    other = draw.choice(draw.choice(list(seeds().values())))
    at = draw.randrange(len(raw) + 1)
    raw[at:] = other[at:]
    return f"another file from {at} on", False


AIMED = (_set_field,) * 5 + (_retype, _replace_value, _replace_value, _weights, _key)
BLIND = (_flip, _flip, _extreme, _extreme, _delete, _insert, _cut, _move, _splice)
