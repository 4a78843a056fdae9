"""Columns and tables of whatever library: the rows that they have, and a column of the same kind for the answers.

Imports none of these libraries: an object of one has been made by it. Knows nothing of models.
"""

import re
import sys

from nbllm.errors import NbLLMError, OptionError

FIELD = re.compile(r"\{([^{}]*)\}")


def _library(data):
    return type(data).__module__.partition(".")[0]


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
        self._numpy = self._library == "numpy"
        self.tabular = self._library in ("pandas", "polars")
        columns = [str(name) for name in getattr(data, "columns", ())]
        if columns:
            values = zip(*(list(data[name]) for name in data.columns))
            rows = [dict(zip(columns, row)) for row in values]
            if template is None:
                raise OptionError(f"a table needs a template, such as template='{{{columns[0]}}}'; it has the columns "
                                  f"{', '.join(columns)}")  # fmt: skip
        elif isinstance(data, str | bytes):
            raise OptionError("prompts is one text: give a list of them, or ask it with nbllm.Chat")
        else:
            try:
                rows = list(data)
            except TypeError as error:
                raise OptionError(
                    f"prompts is a {type(data).__name__}, through which one cannot go: give a list"
                ) from error
        name = getattr(data, "name", None)
        used = FIELD.findall(template) if template is not None else []
        known = {"", *columns, *([str(name)] if name is not None else [])}
        known.update(key for row in rows[:1] if isinstance(row, dict) for key in map(str, row))
        if template is not None and not known & set(used):
            raise OptionError(f"the template names none of {', '.join(sorted(known - {''})) or '{}'} in braces")
        self.prompts = [_prompt(number, row, template, name) for number, row in enumerate(rows)]

    def column(self, values: list):
        """Values, one a row, as the data was: a column of pandas or Polars, an array of NumPy, or a list."""
        if self._library == "pandas":
            return sys.modules["pandas"].Series(values, index=self._index, dtype=object).infer_objects()
        if self._library == "polars":
            polars = sys.modules["polars"]
            failed = any(isinstance(value, NbLLMError) for value in values)  # a column of objects then
            return polars.Series(values, dtype=polars.Object) if failed else polars.Series(values)
        if self._numpy:
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
            return sys.modules["polars"].DataFrame(columns, strict=False)
        return records


def _prompt(number, row, template, name):
    if template is None:
        return _text(number, row)
    fields = {"": row, **({str(name): row} if name is not None else {})}
    if isinstance(row, dict):
        fields |= {str(key): value for key, value in row.items()}
    missing = [key for key in FIELD.findall(template) if key in fields and _missing(fields[key])]
    if missing:
        return OptionError(f"row {number} has no {missing[0] or 'text'}")
    return FIELD.sub(lambda match: str(fields[match[1]]) if match[1] in fields else match[0], template)


def _text(number, value):
    return OptionError(f"row {number} has no text") if _missing(value) else str(value)


def _missing(value):
    """None, and what is not equal to itself or will not say: a NaN, and what pandas has in its place."""
    try:
        return value is None or bool(value != value)
    except (TypeError, ValueError):
        return type(value).__name__ == "NAType"
