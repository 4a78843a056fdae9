"""Columns and tables of whatever library: the rows that they have, and a column of the same kind for the answers.

Imports none of these libraries: an object of one has been made by it. Knows nothing of models.
"""

import re
import sys

from nbllm.errors import NbLLMError, OptionError, brief

FIELD = re.compile(r"\{([^{}]*)\}")
MOST = 10_000_000  # rows; what has more may have no end
NAMED = 20  # columns, in a message
TOO_MANY = f"prompts has more than {MOST:,} rows, or no end: give a part of them"
KINDS = {"pandas": ("DataFrame", "Series"), "polars": ("DataFrame", "Series"), "numpy": ("ndarray",)}


def is_table(data) -> bool:
    """Whether it has columns. A class says so: a row of pandas has an attribute for each of its labels."""
    return hasattr(type(data), "columns")


def _library(data):
    """Whose column, table or array it is; pandas' own arrays and indexes are arrays as NumPy's are."""
    for library, names in KINDS.items():
        if (module := sys.modules.get(library)) and isinstance(data, tuple(getattr(module, name) for name in names)):
            return library
    return "numpy" if type(data).__module__.partition(".")[0] == "pandas" else None


class Rows:
    """Prompts as a user has them.

    Parameters
    ----------
    data : iterable, or a column or table of pandas or Polars
    template : str, optional
        The prompt, in which `{name}` stands for what a row has in that column, and `{}` for the row itself. Other
        braces stay.

    Attributes
    ----------
    prompts : list of str or OptionError
        One a row; the error where a row has no text.
    tabular : bool
        Whether the data was a column or a table of pandas or Polars.

    Raises
    ------
    OptionError
        A table without a template, a template that names no column, or data that cannot be gone through.
    """

    def __init__(self, data, template: str | None = None):
        self._library = _library(data)
        self._index = data.index if self._library == "pandas" else None
        self.tabular = self._library in ("pandas", "polars")
        if template is not None and not isinstance(template, str):
            raise OptionError(f"the template is of type {type(template).__name__}, not text")
        if isinstance(data, str | bytes):
            raise OptionError("prompts is one text: give a list of them, or ask it with nbllm.Chat")
        columns, rows = _table(data) if is_table(data) else ([], data)
        if columns and template is None:
            raise OptionError(f"a table needs a template, such as template='{{{columns[0]}}}'; it has the columns "
                              f"{_listed(columns)}")  # fmt: skip
        rows = _gone_through(rows)
        name = None if columns else getattr(data, "name", None)
        used = FIELD.findall(template) if template is not None else []
        known = {"", *columns, *([str(name)] if name is not None else [])}
        known.update(str(key) for row in (rows[:1] if columns else rows) if isinstance(row, dict) for key in row)
        if template is not None and (rows or columns) and not known & set(used):
            raise OptionError(f"the template names none of {_listed(sorted(known - {''})) or '{}'} in braces")
        for field in used:
            if columns.count(field) > 1:
                raise OptionError(f"the table has {columns.count(field)} columns of the name {field!r}: rename them")
        self.prompts = [_prompt(number, row, template, name, known) for number, row in enumerate(rows)]

    def column(self, values: list):
        """Values, one a row, as the data was: a column of pandas or Polars, an array of NumPy, or a list."""
        if self._library == "pandas":
            return sys.modules["pandas"].Series(values, index=self._index, dtype=object).infer_objects()
        if self._library == "polars":
            return _polars(values)
        if self._library == "numpy":
            numpy = sys.modules["numpy"]
            array = numpy.empty(len(values), object)  # (rows,)
            array[:] = values
            return array
        return values

    def table(self, records: list[dict]):
        """Records, one a row, as a table of the same library; as they are where the data had none."""
        names = list(dict.fromkeys(name for record in records for name in record))
        columns = {name: [record.get(name) for record in records] for name in names}
        if self._library == "pandas":
            return sys.modules["pandas"].DataFrame(columns, index=self._index)
        if self._library == "polars":
            return sys.modules["polars"].DataFrame({name: _polars(column) for name, column in columns.items()})
        return records


def _table(data):
    """The names of a table's columns as text, and its rows as dicts, one by one."""
    try:
        if hasattr(data, "collect"):
            raise OptionError("prompts is not computed yet: give what its collect() returns")
        names = list(data.columns)
        # by position, for names may be there twice
        columns = [data.iloc[:, i] if hasattr(data, "iloc") else data[name] for i, name in enumerate(names)]
        if len(data) > MOST:
            raise OptionError(TOO_MANY)
        if not names and len(data):
            raise OptionError("the table has no columns, and so nothing to ask about")
    except OptionError:
        raise
    except Exception as error:
        raise OptionError(f"the columns of prompts, a {type(data).__name__}, cannot be read: {brief(error)}") from error
    names = [str(name) for name in names]
    return names, (dict(zip(names, row)) for row in zip(*columns))


def _listed(names):
    """Names in one line, the first ones if there are many."""
    first = " ".join(", ".join(names[:NAMED]).split())
    return f"{first} and {len(names) - NAMED:,} more" if len(names) > NAMED else first


def _gone_through(data):
    """What one comes by, as a list. Made row by row: an interrupt ends that, and what has no end has too much."""
    rows = []
    try:
        for row in data:
            rows.append(row)
            if len(rows) > MOST:
                break
    except Exception as error:
        if isinstance(error, TypeError) and not rows:
            kind = type(data).__name__
            raise OptionError(f"prompts is a {kind}, through which one cannot go: give a list") from error
        raise OptionError(f"prompts ends with an error after {len(rows)} rows: {brief(error)}") from error
    if len(rows) > MOST:
        raise OptionError(TOO_MANY)
    return rows


def _polars(values):
    """A column of Polars of the type that holds these values as they are; of objects where there is none."""
    polars = sys.modules["polars"]
    for strict in (True, False) if not any(isinstance(value, NbLLMError) for value in values) else ():
        try:
            column = polars.Series(values, strict=strict)
        except Exception:  # of many kinds: this is how it says that they do not go together
            continue
        if _holds(column.to_list(), values):
            return column
    return polars.Series(values, dtype=polars.Object)


def _holds(kept, value):
    """Whether this is the same as the value of JSON, though fields that it lacks may be there as None."""
    if isinstance(value, dict):
        return isinstance(kept, dict) and all(name in kept and _holds(kept[name], value[name]) for name in value)
    if isinstance(value, list):
        return isinstance(kept, list) and len(kept) == len(value) and all(map(_holds, kept, value))
    known = value is None or isinstance(value, str | bool | int | float)
    return not known or kept == value and isinstance(kept, bool) == isinstance(value, bool)


def _prompt(number, row, template, name, known):
    """What to ask about a row; an error where it has no text, or its own methods raise one."""
    try:
        return _text(number, row) if template is None else _filled(number, row, template, name, known)
    except Exception as error:
        return OptionError(f"row {number} cannot be told as text: {brief(error)}")


def _filled(number, row, template, name, known):
    fields = {"": row, **({str(name): row} if name is not None else {})}
    if isinstance(row, dict):
        fields |= {str(key): value for key, value in row.items()}
    missing = [key for key in FIELD.findall(template) if key in known and _missing(fields.get(key))]
    if missing:
        return OptionError(f"row {number} has no {missing[0] or 'text'}")
    return FIELD.sub(lambda match: str(fields[match[1]]) if match[1] in fields else match[0], template)


def _text(number, value):
    return OptionError(f"row {number} has no text") if _missing(value) else str(value)


def _missing(value):
    """None, and what is not equal to itself or will not say: a NaN, and what pandas has in its place."""
    try:
        return value is None or bool(value != value)
    except Exception:  # pandas' own missing value raises here, and objects may do anything
        return type(value).__name__ == "NAType"
