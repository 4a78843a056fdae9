"""`%%chat --each COLUMN`: what the cell says, asked about every row; the answers come back as a column.

Knows nothing of models; `chat/map.py` does the work, on the session's worker.
"""

from nbllm.chat.columns import FIELD, is_table
from nbllm.chat.map import Map
from nbllm.errors import OptionError, Stopped
from nbllm.jupyter.cell import run
from nbllm.jupyter.display import output
from nbllm.jupyter.interpolate import names
from nbllm.jupyter.session import session


def each(shell, config, given, options, prompt, schema=None):
    """Ask about every row, with progress in the cell's output; returns the answers, or keeps them where --out says.

    schema : which each answer fits; all that `Map` takes.

    Raises
    ------
    OptionError
        There is no such object, or one cannot ask about its rows.
    Stopped
        The user interrupted. What was answered is kept, and the same cell goes on from there.
    """
    try:
        data = names(shell)[given.each]
    except KeyError:
        raise OptionError(f"--each: there is no {given.each!r}; name a list, a column or a table") from None
    template = prompt if FIELD.search(prompt) or is_table(data) else f"{prompt}\n\n{{}}"
    usual = vars(config.sampling()) | ({"repeat_penalty": 1.0} if schema else {})
    rows = Map(data, config.model, template, given.system or config.system, schema=schema, **usual | options)
    current = session(config)
    try:
        run(current, current.map(rows), output(shell))
    finally:
        if given.out is not None and (rows.progress.done or not len(rows)):  # else what it names is worth more
            shell.user_ns[given.out] = rows.results
    progress = rows.progress
    if progress.done < progress.total:
        raise Stopped(
            f"Stopped after {progress.done} of {progress.total} rows; run the cell again to go on from there."
        )
    return rows.results if given.out is None else None
