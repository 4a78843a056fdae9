"""The sampling options: their defaults, meaning and ranges. `sampling.py` follows them.

Imports no NumPy, so that `%load_ext nbllm` can derive its magics' options from the fields at no cost.
"""

import math
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real

from nbllm.errors import OptionError, quoted

SEED_MAX = 2**64 - 1


def _option(default, help, kind=Real, low=0, high=math.inf, optional=False):
    return field(default=default, metadata={"help": help, "kind": kind, "low": low, "high": high, "optional": optional})


@dataclass(frozen=True)
class Sampling:
    """How to choose the next token, and when to end. Stop strings are carried here for those who know text.

    Magic arguments, traits, panel controls and output metadata derive from these fields; `metadata` of each holds
    its `help` and its range.

    Raises
    ------
    OptionError
        A value is of the wrong type or out of range.
    """

    temperature: float = _option(0.7, "0 always takes the likeliest token; higher is more varied", high=100)
    top_k: int = _option(40, "keep only this many of the likeliest tokens; 0 keeps all", Integral)
    top_p: float = _option(0.95, "keep the likeliest tokens that together are this probable; 1 keeps all", high=1)
    min_p: float = _option(0.05, "keep tokens at least this likely relative to the likeliest; 0 keeps all", high=1)
    repeat_penalty: float = _option(1.1, "make tokens that occurred already less likely; 1 is off", low=0.01, high=100)
    repeat_window: int = _option(64, "how many of the last tokens the repeat penalty looks at; 0 is off", Integral)
    seed: int | None = _option(None, "the same seed gives the same text; None draws a new one", Integral,
                               high=SEED_MAX, optional=True)
    max_tokens: int | None = _option(512, "most tokens in a reply; None goes on until the context is full", Integral,
                                     low=1, optional=True)
    stop: tuple[str, ...] = field(default=(), metadata={"help": "end the reply before any of these strings"})

    def __post_init__(self):
        for option in fields(self):
            value = getattr(self, option.name)
            value = _strings(value) if option.name == "stop" else _number(option.name, value, **option.metadata)
            object.__setattr__(self, option.name, value)  # the dataclass is frozen

    def updated(self, **options) -> "Sampling":
        """A copy with these fields changed; an unknown name raises OptionError."""
        known = [option.name for option in fields(self)]
        for name in options:
            if name not in known:
                raise OptionError(f"unknown option {name!r}; there are {', '.join(known)}")
        return replace(self, **options)


def _number(name, value, help, kind, low, high, optional):
    """The value as a plain int or float, or OptionError. `bool` is an int to Python and never meant here."""
    if value is None and optional:
        return None
    if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
        what = "a whole number" if kind is Integral else "a number"
        limits = f"of {low} or more" if high == math.inf else f"from {low} to {high}"
        raise OptionError(f"{name}={quoted(value)} is out of range: give {what} {limits} ({help})")
    return int(value) if kind is Integral else float(value)


def _strings(value):
    strings = (value,) if isinstance(value, str) else value
    if not isinstance(strings, (tuple, list)) or not all(isinstance(string, str) and string for string in strings):
        given = quoted(value)
        raise OptionError(f"stop={given} is not usable: give a string or a tuple of strings, none of them empty")
    return tuple(strings)
