"""Paths as the user wrote them, and files in place of whatever else may be there. Knows nothing of what is in them."""

import errno
import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from nbllm.errors import NbLLMError, quoted

WHOLE = "write the whole path"
HOMELESS = "{} cannot be found: there is no such home folder; {}"


def expanded(path, kind: type[Exception] = NbLLMError, instead=WHOLE) -> Path:
    """The path, with the home folder in place of `~`.

    kind : what is raised when there is no such home folder, or when it is no path at all; instead : what to do then.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise kind(HOMELESS.format(path, instead)) from error
    except TypeError as error:
        raise kind(f"{quoted(path)} is no path; give a string or a Path") from error


def own(place: str, kind: type[Exception] = NbLLMError, instead=WHOLE) -> Path:
    """nbllm's folder in the system's place for a user's "data" or "cache"; kind, instead : as of `expanded`."""
    try:
        folder = getattr(platformdirs, f"user_{place}_path")("nbllm", appauthor=False)
    except RuntimeError as error:  # some versions of it say so, others leave the `~`
        raise kind(HOMELESS.format(f"your folder for {place}", instead)) from error
    return expanded(folder, kind, instead)


def opened(path, mode="rb"):
    """A file, opened; FileNotFoundError where anything else is. It waits for nobody, as one who opens a pipe would."""
    if not os.path.isfile(path):
        raise FileNotFoundError(errno.ENOENT, "there is no such file")
    # what was put in its place just now is opened at once, too
    return open(path, mode, opener=lambda path, flags: os.open(path, flags | getattr(os, "O_NONBLOCK", 0)))


@contextmanager
def written(path: Path):
    """A file to write, which takes its place when all of it is on the disk; before that, what was there stays."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".nbllm-")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(handle)
        os.replace(temporary, path)
    finally:
        with suppress(FileNotFoundError):  # it is in its place
            os.unlink(temporary)
