"""The control groups that this process is in: where each says what it allows. Knows no processors and no memory."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

ROOT = Path("/")


def groups(controller: str) -> Iterator[tuple[Path, bool]]:
    """The folders of the process's own group and of those around it, and whether they are of the first version.

    In a container the path may be that of another view of the tree; then only the root of the container's own is found.
    A folder need not exist, nor have a limit. None where there are no control groups.

    controller : as Linux names it, "cpu" or "memory"
    """
    try:
        lines = (ROOT / "proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        first = bool(controllers)
        tree = ROOT / "sys/fs/cgroup" / (controller if first else "")
        for group in (path.strip("/"), *map(str, PurePosixPath(path.strip("/")).parents)):
            yield tree / group, first
