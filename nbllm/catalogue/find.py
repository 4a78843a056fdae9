"""Where models are on this machine: a name or a path to a file. Never touches the network."""

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from nbllm.catalogue.known import DEFAULT, known
from nbllm.errors import ModelNotFoundError

WAYS = "fetch {} with `nbllm pull` when online, or use a file that you have: `%chat model PATH`, nbllm.load('PATH')"


@dataclass(frozen=True)
class Found:
    """A model file in the models folder; size in bytes."""

    name: str
    path: Path
    size: int


def models_dir() -> Path:
    """The folder of the user's models: `NBLLM_MODELS`, or `nbllm/models` in the system's place for user data."""
    given = os.environ.get("NBLLM_MODELS")
    return Path(given).expanduser() if given else platformdirs.user_data_path("nbllm", appauthor=False) / "models"


def find(name: str | os.PathLike | None = None) -> Path:
    """The file of a model.

    Parameters
    ----------
    name : str or path, optional
        A known model's name, the name of a file in the models folder (with or without its ending), or any path.
        None is the default model.

    Raises
    ------
    ModelNotFoundError
        There is no such file on this machine.
    """
    model = DEFAULT if name is None else known(os.fspath(name))
    if model:
        path = models_dir() / model.file
        if not path.is_file():
            raise ModelNotFoundError(f"the model {model.name} is not on this machine: {WAYS.format('it')}")
        return path
    name = os.fspath(name)
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        raise ModelNotFoundError(f"{name!r} is a folder: give the path of a model file in it")
    places = [path]
    if os.path.basename(name) == name:  # a bare name, so nothing outside of the models folder
        places += [models_dir() / name, models_dir() / f"{name}.gguf"]
    for place in places:
        if os.path.isfile(place):  # also false for what cannot be a path
            return Path(place)
    raise ModelNotFoundError(f"there is no model {name!r} on this machine: {WAYS.format('the default model')}")


def available() -> list[Found]:
    """The model files in the models folder."""
    found = []
    for path in sorted(models_dir().glob("*.gguf")):
        model = known(path.name)
        found.append(Found(model.name if model else path.stem, path, path.stat().st_size))
    return found
