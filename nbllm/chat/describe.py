"""What a model is told of a Python object: its kind and what matters of it, within a budget of tokens.

Types are recognised by the names of their classes, so nothing is imported that the object did not bring. Tokens are
reckoned, not counted: so a description is the same for every model, and before one is loaded. Knows nothing of prompts
and of how the object is called.

An object says itself what a model should know of it by a method `_repr_llm_` that returns text.
"""

import inspect
import math
import os
import re
import reprlib
import textwrap
import traceback
from collections import deque
from itertools import islice

BUDGET = 500  # tokens for one object
SAMPLE = 200_000  # rows or values that statistics are made of, at most
CLIP = 60  # characters of one value in a table
ROWS = 5
EDGE = 3  # values at either end of an axis
BUILT_IN = (list, tuple, dict, set, frozenset, deque)
SHOWN = 1000  # values of an array, at most

# What vocabularies have a token for, at least: some letters, a run of white space, any other character of ASCII, such
# as a digit, and a byte of those beyond.
_PIECE = re.compile(r"[A-Za-z]{1,4}|\s+|[\s\S]")


def describe(value, budget: int = BUDGET) -> tuple[str, bool]:
    """What to tell a model of this object, and whether that is all there is to it: the object's own text, uncut.

    Strings are always whole. Whatever the object's own methods raise comes out of here.
    """
    if isinstance(value, str):
        return str(value), True
    if (own := getattr(type(value), "_repr_llm_", None)) is not None:
        text = own(value)
        if not isinstance(text, str):
            raise TypeError(f"_repr_llm_ returned {type(text).__name__}, not text")
        return _cut(text, budget), False
    for base in type(value).__mro__:
        if describer := DESCRIBERS.get(f"{str(base.__module__).partition('.')[0]}.{base.__qualname__}"):
            text = describer(value, budget)
            return (str(value), True) if text is None else (_cut(text, budget), False)
    text = str(value)
    cut = _cut(text, budget)
    return cut, cut == text


def tokens(text: str, most: float = math.inf) -> int:
    """How many tokens a text has at most, by a reckoning that suits every vocabulary; no further than beyond `most`."""
    count = 0
    for piece in _PIECE.finditer(text):
        count += _weight(piece)
        if count > most:
            break
    return count


def _weight(piece):
    return 1 if piece[0].isascii() else len(piece[0].encode(errors="surrogatepass"))


def _cut(text, budget):
    """The beginning of the text that fits, and how much is left out."""
    left = budget
    for piece in _PIECE.finditer(text):
        left -= _weight(piece)
        if left < 0:
            return f"{text[: piece.start()]} ... ({len(text) - piece.start():,} more characters)"
    return text


def _fitting(lines, budget):
    """Those of the first lines that fit together."""
    fitting = []
    for line in lines:
        budget -= tokens(line, budget) + 1
        if budget < 0:
            break
        fitting.append(line)
    return fitting


def _clipped(value):
    text = str(value)
    return text if len(text) <= CLIP else f"{text[:CLIP]}..."


def _of_sample(size, what):
    return f" (statistics: of the first {SAMPLE:,} {what})" if size > SAMPLE else ""


def _frame(frame, budget):
    """Schema and statistics, a line a column, in two thirds of the budget; then the first rows of these columns."""
    rows, columns = frame.shape
    head = f"pandas DataFrame of {rows:,} rows and {columns:,} columns{_of_sample(rows, 'rows')}"
    sample = frame.head(SAMPLE)
    about = (f"- {_clipped(name)}: {_column(sample.iloc[:, i])}" for i, name in enumerate(frame.columns))
    lines = [head, *_fitting(about, budget * 2 // 3)]
    shown = len(lines) - 1
    if shown < columns:
        lines.append(f"- and {columns - shown:,} more columns")
    first = frame.iloc[:ROWS, :shown].itertuples(name=None)
    values = _fitting((" | ".join(map(_clipped, row)) for row in first), budget - tokens("\n".join(lines)) - 10)
    return "\n".join([*lines, "First rows, the index before each:", *values] if shown and values else lines)


def _series(series, budget):
    size = len(series)
    head = f"pandas Series of {size:,} values, {_column(series.head(SAMPLE))}{_of_sample(size, 'values')}"
    values = (f"{_clipped(label)} | {_clipped(value)}" for label, value in series.head(ROWS).items())
    return "\n".join([head, "First values, the index before each:", *_fitting(values, budget - tokens(head) - 10)])


def _column(series):
    """Type, missing values and statistics of a column, in one line."""
    import numpy as np

    with np.errstate(all="ignore"):  # the mean of infinite numbers is none, which it says itself
        return ", ".join(_facts(series))


def _facts(series):
    present, kind = series.dropna(), getattr(series.dtype, "kind", "O")
    parts = [str(series.dtype)]
    if len(present) < len(series):
        parts.append(f"{len(series) - len(present):,} missing")
    if not len(present):
        return parts
    if kind in "iuf":
        spread = f", standard deviation {present.std():.6g}" if len(present) > 1 else ""
        parts.append(f"{present.min():.6g} to {present.max():.6g}, mean {present.mean():.6g}{spread}")
    elif kind in "mM":
        parts.append(f"{present.min()} to {present.max()}")
    else:
        try:
            counts = present.value_counts()
        except TypeError:  # values such as lists cannot be counted
            return parts
        commonest = ", ".join(f"{_clipped(value)} ({count:,})" for value, count in counts.head(3).items())
        parts.append(f"{len(counts):,} distinct, most often {commonest}")
    return parts


def _array(array, budget):
    import numpy as np

    parts = [f"NumPy array of shape {array.shape}, {array.dtype}"]
    sample = array.flat[:SAMPLE]  # (at most SAMPLE,)
    if array.dtype.kind == "b":
        parts.append(f"{np.count_nonzero(sample):,} true")
    elif array.dtype.kind in "iuf":
        finite = sample[np.isfinite(sample)]
        if finite.size < sample.size:
            parts.append(f"{sample.size - finite.size:,} not finite")
        if finite.size:
            with np.errstate(all="ignore"):  # the sum may be too large
                parts.append(f"{finite.min():.6g} to {finite.max():.6g}, mean {finite.mean(dtype=float):.6g}")
    head = f"{', '.join(parts)}{_of_sample(array.size, 'values')}"
    if math.prod(min(size, 2 * EDGE) for size in array.shape) > SHOWN:  # what is left out of each axis is too little
        return f"{head}\nFirst values: {np.array2string(array.flat[: 2 * EDGE], precision=6)}"
    return f"{head}\n{np.array2string(array, threshold=60, edgeitems=EDGE, precision=6)}"


def _tensor(tensor, budget):
    return f"PyTorch tensor of shape {tuple(tensor.shape)}, {tensor.dtype}\n{tensor}"


def _source(thing, budget):
    try:
        return textwrap.dedent(inspect.getsource(thing))
    except (OSError, TypeError):  # built in, or its file is gone
        return _signature(thing, budget)


def _signature(thing, budget):
    try:
        signature = str(inspect.signature(thing))
    except (ValueError, TypeError):
        signature = "(...)"
    return f"{thing.__qualname__}{signature}\n{inspect.getdoc(thing) or ''}".rstrip()


def _exception(error, budget):
    """As Python prints it, without the frames of IPython; the first of them are left out when it is long."""
    calls = traceback.StackSummary.extract(
        (frame, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).partition(".")[0] not in ("IPython", "ipykernel")
    )
    lines = [f'  File "{_place(call.filename)}", line {call.lineno}, in {call.name}\n    {call.line}' for call in calls]
    last = "".join(traceback.format_exception_only(error)).rstrip()
    kept = _fitting(reversed(lines), budget - tokens(last, budget) - 10)[::-1]
    head = ["Traceback (most recent call last):"] if lines else []
    return "\n".join([*head, *["  ..."] * (len(kept) < len(lines)), *kept, last])


def _place(filename):
    """A cell's file name is an address that says nothing, and no such file is there."""
    return filename if os.path.isfile(filename) else "cell"


class _Short(reprlib.Repr):
    """Of so many items, at all levels together: more would be cut, and what is in others many times has no end."""

    def __init__(self, items):
        super().__init__()
        self._left = items

    def repr1(self, x, level):
        self._left -= 1
        if self._left < 0:
            return self.fillvalue
        for kind in BUILT_IN:
            if isinstance(x, kind) and len(x) > self.maxlist:  # else all of it is sorted, or told by its own class
                x = kind(islice(x.items() if kind is dict else x, self.maxlist + 1))
        return super().repr1(x, level)


def _container(values, budget):
    """None, if its own text is short enough."""
    short = _Short(budget)
    short.maxlevel = 6
    for limit in ("maxdict", "maxlist", "maxtuple", "maxset", "maxfrozenset", "maxdeque", "maxarray"):
        setattr(short, limit, budget // 4)
    short.maxstring = short.maxother = short.maxlong = 4 * budget
    text = short.repr(values)
    if "..." not in text and _cut(text, budget) == text:  # not all that is shown: that sorts what has no order
        return None
    return f"{type(values).__name__} of {len(values):,} items: {text}"


DESCRIBERS = {  # package and class: what describes it, given the object and the budget
    "pandas.DataFrame": _frame,
    "pandas.Series": _series,
    "numpy.ndarray": _array,
    "torch.Tensor": _tensor,
    "builtins.function": _source,
    "builtins.method": _source,
    "builtins.type": _source,
    "builtins.builtin_function_or_method": _signature,
    "builtins.BaseException": _exception,
    **{f"{kind.__module__}.{kind.__name__}": _container for kind in BUILT_IN},
}
