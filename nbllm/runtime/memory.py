"""How much memory this process may use: the machine's, and what control groups leave of it. Knows no model."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path("/")
LIMITLESS = 1 << 60  # bytes; a v1 group without a limit has a number near 2**63


@dataclass(frozen=True)
class Memory:
    """Bytes: in all, and those that can be taken now without pushing anything out to the disk."""

    total: int
    free: int


def memory() -> Memory:
    """The machine's memory, or what a control group (a container, a batch job) allows of it."""
    import psutil  # here, as only loading and lists need it

    machine = psutil.virtual_memory()
    total, free = machine.total, machine.available
    for limit, used in _groups():
        total, free = min(total, limit), min(free, max(0, limit - used))
    return Memory(total, free)


def gb(size: float) -> str:
    """A size as people read it: GB with one decimal."""
    return f"{size / 1e9:,.1f} GB"


def _groups() -> Iterator[tuple[int, int]]:
    """(limit, used) of the process's control group and those around it. Pages of files can be dropped: not used.

    In a container the path may be that of another view of the tree; then only the root of its own is found.
    """
    try:
        lines = (ROOT / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        v1 = bool(controllers)
        tree = ROOT / ("sys/fs/cgroup/memory" if v1 else "sys/fs/cgroup")
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if v1 else ("memory.max", "memory.current")
        for group in (path.strip("/"), *map(str, PurePosixPath(path.strip("/")).parents)):
            with suppress(OSError, ValueError):  # no such group here, or its limit is "max"
                limit, used = (int((tree / group / name).read_text()) for name in names)
                if limit < LIMITLESS:
                    yield limit, used - _files(tree / group, "total_" if v1 else "")


def _files(group, prefix):
    """Bytes of files that a control group keeps in memory and can drop."""
    with suppress(OSError):
        counts = re.findall(rf"^{prefix}(?:in)?active_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
        return sum(map(int, counts))
    return 0
