"""How much memory this process may use: the machine's, and what control groups leave of it. Knows no model."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from ..errors import NbLLMError, why
from .cgroups import groups

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None

LIMITLESS = 1 << 60  # bytes; a v1 group without a limit has a number near 2**63


@dataclass(frozen=True)
class Memory:
    """Bytes: in all, and those that can be taken now without pushing anything out to the disk."""

    total: int
    free: int


def memory() -> Memory:
    """The machine's memory, or what a control group (a container, a batch job) or `ulimit -v` allows of it.

    Raises
    ------
    NbLLMError
        The system does not say.
    """
    import psutil  # here, as only loading and lists need it

    try:
        machine = psutil.virtual_memory()
        limits = (*_limits(), *_own_limit(psutil.Process()))
    except (OSError, psutil.Error) as error:
        raise NbLLMError(
            f"the system does not say what memory is free ({why(error)}): close some files, if this process has many "
            "open"
        ) from error
    total, free = machine.total, machine.available
    for limit, used in limits:
        total, free = min(total, limit), min(free, max(0, limit - used))
    return Memory(total, free)


def gb(size: float) -> str:
    """A size as people read it: GB with one decimal."""
    return f"{size / 1e9:,.1f} GB"


def _limits() -> Iterator[tuple[int, int]]:
    """(limit, used) of each control group that has a limit. Pages of files can be dropped: not used."""
    for group, first in groups("memory"):
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if first else ("memory.max", "memory.current")
        with suppress(OSError, ValueError):  # no such group here, or its limit is "max"
            limit, used = (int((group / name).read_text()) for name in names)
            if limit < LIMITLESS:
                yield limit, used - _files(group, "total_" if first else "")


def _own_limit(process) -> Iterator[tuple[int, int]]:
    """(limit, used) of this process's address space, if that has a limit."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0] if resource else LIMITLESS
    if 0 <= limit < LIMITLESS:
        yield limit, process.memory_info().vms


def _files(group, prefix):
    """Bytes of files that a control group keeps in memory and can drop."""
    with suppress(OSError):  # no such group here
        counts = re.findall(rf"^{prefix}(?:in)?active_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
        return sum(map(int, counts))
    return 0
