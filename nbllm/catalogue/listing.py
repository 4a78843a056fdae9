"""The list of models for people: those on this machine, those that can be fetched, and the one that suits the machine.

Cells are text. Opens the files that the catalogue does not know, to see what they say of themselves.
"""

from dataclasses import dataclass
from pathlib import Path

from nbllm.catalogue.known import KNOWN, KnownModel
from nbllm.catalogue.places import Found, available
from nbllm.errors import NbLLMError, printable
from nbllm.formats.open import open_model
from nbllm.runtime.estimate import LEAST_CONTEXT, PACKED, RESERVE, shape
from nbllm.runtime.memory import Memory, gb, memory
from nbllm.runtime.models import ARCHITECTURES

HEAD = ("name", "parameters", "size", "memory", "fits", "licence")
NUMBERS = ("parameters", "size", "memory")
SHARE = 0.5  # of the machine's memory, for the model that is recommended: the rest is for the user's own work


@dataclass(frozen=True)
class Table:
    """A part of the list; every row has a cell for each name in `head`."""

    title: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]


def listing(in_use: Path | None = None) -> tuple[list[Table], str]:
    """The tables, and a line about this machine. in_use : the file of the model that is loaded."""
    machine, here = memory(), available(in_use)
    known = {found.known for found in here}
    today, old = ([m for m in KNOWN if m not in known and (m.year == 2023) is past] for past in (False, True))
    found = [_found(each, machine, in_use) for each in here]
    new, past = ([_row(model, machine, model.about) for model in models] for models in (today, old))
    tables = [
        Table("On this machine", (*HEAD, "where"), found),
        Table("To fetch by name: nbllm pull NAME, or %chat model NAME", (*HEAD, "about"), new),
        Table("The models of May 2023, in the same ways", (*HEAD, "about"), past),
    ]
    best = recommended(machine)
    advice = f"recommended for it: {best.name}, {best.about}" if best else "none of today's models is small enough"
    about = f"This machine has {gb(machine.total)} of memory, {gb(machine.free)} of it free; {advice}."
    return [table for table in tables if table.rows], about


def recommended(machine: Memory) -> KnownModel | None:
    """The largest of today's models that runs and leaves room for the user's own work."""
    fitting = [model for model in KNOWN if model.runs and model.year > 2023 and model.needs <= machine.total * SHARE]
    return max(fitting, key=lambda model: model.parameters, default=None)


def text(tables: list[Table], about: str) -> str:
    """The list for a terminal."""
    return "\n\n".join("\n".join([table.title, *_lines(table)]) for table in tables) + f"\n\n{about}"


def _row(model: KnownModel, machine, last):
    last = last if model.runs else f"not run yet; {last}"
    size, fits = f"{model.parameters:.1f} B", _fits(model.needs, machine)
    return model.name, size, gb(model.size), gb(model.needs), fits, model.licence, last


def _found(found: Found, machine, in_use):
    used = in_use is not None and in_use.resolve() == found.path.resolve()
    last = f"{'in use, ' * used}{found.place}, {printable(str(found.path))}"
    if found.known:
        return _row(found.known, machine, last)
    needs, trouble, metadata = RESERVE + int(found.size * PACKED), "incomplete; " * found.incomplete, {}
    try:
        with open_model(found.path) as gguf:
            metadata = gguf.metadata
        model = shape(metadata)
        needs += model.cache(2 * LEAST_CONTEXT) if model else 0
        if _word(metadata.get("general.architecture")) not in ARCHITECTURES:
            trouble = "not run yet; "
    except NbLLMError:
        trouble = trouble or "not readable; "
    parameters, licence = (_word(metadata.get(f"general.{key}")) for key in ("size_label", "license"))
    return printable(found.name), parameters, gb(found.size), gb(needs), _fits(needs, machine), licence, trouble + last


def _fits(needs, machine):
    return "yes" if needs <= machine.free else "not now" if needs <= machine.total else "no"


def _word(value):
    """What a file says of itself, if it is short and harmless."""
    return value if isinstance(value, str) and value.isprintable() and len(value) <= 40 else ""


def _lines(table):
    rows = [table.head, *table.rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        cells = (
            cell.rjust(width) if name in NUMBERS else cell.ljust(width)
            for cell, width, name in zip(row, widths, table.head)
        )
        yield "  " + "  ".join(cells).rstrip()
