"""From a name or a path to a model file on this machine. Never touches the network."""

import os
import re
from pathlib import Path

from nbllm.catalogue.known import DEFAULT, known
from nbllm.catalogue.places import ENDINGS, Found, available, models_dir
from nbllm.errors import ModelNotFoundError

WAYS = "fetch {} with `nbllm pull{}` when online, or use a file that you have: `%chat model PATH`, nbllm.load('PATH')"
REPO = re.compile(r"(?P<repo>\w[\w.-]*/\w[\w.-]*)(?::(?P<quant>[\w.-]+))?")


def find(name: str | os.PathLike | None = None) -> Path:
    """The file of a model.

    Parameters
    ----------
    name : str or path, optional
        A known model's name, the name of a file in any folder that `available` looks into (with or without its ending),
        `owner/repo` or `owner/repo:QUANT` of the Hugging Face hub, or any path. None is the default model.

    Raises
    ------
    ModelNotFoundError
        There is no such file on this machine.
    """
    model = DEFAULT if name is None else known(os.fspath(name))
    if model:
        return _known(model)
    name = os.fspath(name)
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        raise ModelNotFoundError(f"{name!r} is a folder: give the path of a model file in it")
    if os.path.isfile(path):  # also false for what cannot be a path
        return Path(path)
    if os.path.basename(name) == name or repository(name):  # else it is a path
        for found in available():
            if name.lower() in (found.name.lower(), found.path.name.lower()) or _of_repo(name, found):
                return found.path
    if pullable(name):
        raise ModelNotFoundError(f"the model {name} is not on this machine: {WAYS.format('it', ' ' + name)}")
    raise ModelNotFoundError(
        f"there is no model {name!r} on this machine, and none is known by that name: look into `nbllm models` or "
        f"`%chat models`, {WAYS.format('the default model', '')}"
    )


def pullable(name: str) -> bool:
    """Whether `pull` knows where to look for it: a known model, a repository of the hub, or an address."""
    return bool(known(name) or is_url(name) or repository(name))


def repository(name: str) -> tuple[str, str | None] | None:
    """(owner/repo, QUANT or None) if that is what a name is; `folder/file.gguf` is a path."""
    match = REPO.fullmatch(name)
    return match and not name.lower().endswith(ENDINGS) and (match["repo"], match["quant"]) or None


def is_url(name: str) -> bool:
    return name.lower().startswith(("https://", "http://"))


def _known(model):
    own = models_dir() / model.file
    if os.path.isfile(own):  # also false for what cannot be a path
        return own
    named = [found for found in available() if known(found.path.name) is model and not found.incomplete]
    for found in sorted(named, key=lambda found: found.known is None):  # that very file, or one by its name
        return found.path
    which = "" if model is DEFAULT else f" {model.name}"
    raise ModelNotFoundError(f"the model {model.name} is not on this machine: {WAYS.format('it', which)}")


def _of_repo(name: str, found: Found) -> bool:
    """Whether a file of the hub's cache, or in a folder owner/repo, is the one that `owner/repo:QUANT` names."""
    if not repository(name):
        return False
    repo, quant = repository(name)
    folders = found.path.parent.parts
    inside = "models--" + repo.replace("/", "--") in folders or "/".join(folders[-2:]) == repo
    return inside and (quant is None or has_quant(found.path.name, quant))


def has_quant(file: str, quant: str) -> bool:
    """Whether a file's name has this block type in it, as a word: not Q4_K in Q4_K_M."""
    return bool(re.search(rf"(?<![a-z0-9]){re.escape(quant)}(?![a-z0-9_])", file, re.IGNORECASE))
