"""The folders in which there may be models: our own, those the user names, and those of other programs.

Only lists what is there. Never touches the network, and writes nothing.
"""

import glob
import json
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nbllm.catalogue.known import KnownModel, container, known, recognised
from nbllm.errors import NbLLMError
from nbllm.paths import expanded, own

ENDINGS = (".gguf", ".bin")
SPLIT = re.compile(r"-(\d{5})-of-(\d{5})(?=\.gguf$)", re.IGNORECASE)  # the part that a file is of a split one
MANIFEST = 1 << 20  # bytes of a manifest of Ollama's, at most
INSTEAD = "set NBLLM_MODELS to the path of a folder for models"
DIGEST = re.compile(r"(\w+)[:-](\w+)", re.ASCII)


@dataclass(frozen=True)
class Found:
    """A model file on this machine.

    Attributes
    ----------
    name : str
        A known model's name, or the file's without its ending; `find` takes both.
    path : Path
    size : int
        Bytes, of all parts if the file is split; `path` is then the first.
    place : str
        Whose folder it is in.
    known : KnownModel or None
        What the catalogue has of it, if it is a file that it knows, to the byte.
    """

    name: str
    path: Path
    size: int
    place: str = "nbllm"
    known: KnownModel | None = None

    @property
    def incomplete(self) -> bool:
        """It is a piece of one of 2023's files. Of GGUF files there are several by one name, and their headers tell."""
        model = known(self.path.name)
        return model is not None and model.container != "gguf" and self.size < model.size


def models_dir() -> Path:
    """The folder of the user's models: the first of `NBLLM_MODELS`, or `nbllm/models` in the place for user data."""
    return _own()[0]


def available(and_at: Path | None = None) -> list[Found]:
    """The model files on this machine, each once, those in our own folder first; and_at : one that may be elsewhere."""
    found, seen = [], set()
    for place, name, parts in (*_files(), *([("by path", and_at.stem, _parts(and_at))] if and_at else ())):
        with suppress(OSError):  # deleted meanwhile, or a link that leads nowhere
            path = parts[0]
            real, size = os.path.realpath(path, strict=True), sum(part.stat().st_size for part in parts)
            if real not in seen and container(path):
                seen.add(real)
                model = recognised(path)
                found.append(Found(model.name if model else name, path, size, place, model))
    return found


def _files() -> Iterator[tuple[str, str, list[Path]]]:
    """(whose, name, its parts) of whatever may be a model."""
    home = Path(os.path.expanduser("~"))  # stays as it is for a user who has none, and so leads to nothing
    for folder in _own():
        for pattern in ("*", "*/*/*"):  # those of a repository are in a folder owner/repo
            yield from _in(folder, "nbllm", pattern)
    for folder in (_gpt4all(home), home / ".cache/gpt4all"):  # the program's, the Python package's
        yield from _in(folder, "GPT4All", "*")
    for folder in (home / ".lmstudio/models", home / ".cache/lm-studio/models"):  # today's, that of before 2025
        yield from _in(folder, "LM Studio", "*/*/*")
    for pattern in ("models--*/snapshots/*/*", "models--*/snapshots/*/*/*"):
        yield from _in(_hub(home), "Hugging Face", pattern)
    yield from _ollama(Path(os.environ.get("OLLAMA_MODELS") or home / ".ollama/models"))


def _in(folder, place, pattern):
    models = {}  # folder, name, number of parts -> the parts
    with suppress(OSError):  # NBLLM_MODELS is whatever the user likes
        for path in sorted(folder.glob(pattern)):
            if path.suffix.lower() in ENDINGS and "mmproj" not in path.name.lower():  # that is for pictures
                split = SPLIT.search(path.name)
                whole = path.parent, SPLIT.sub("", path.name), split and split[2]
                models.setdefault(whole, []).append(path)
    for parts in models.values():
        split = SPLIT.search(parts[0].name)
        if not split or int(split[1]) == 1:
            yield place, parts[0].stem, parts


def _parts(path):
    if not SPLIT.search(path.name):
        return [path]
    parts = path.parent.glob(SPLIT.sub(r"-?????-of-\2", glob.escape(path.name)))
    return [path, *(part for part in parts if part != path)]


def _own():
    given = [folder for folder in os.environ.get("NBLLM_MODELS", "").split(os.pathsep) if folder]
    return [expanded(folder, NbLLMError, INSTEAD) for folder in given] or [own("data", NbLLMError, INSTEAD) / "models"]


def _gpt4all(home):
    """As Qt names an application's local data."""
    base = {"win32": Path(os.environ.get("LOCALAPPDATA") or home / "AppData/Local"),
            "darwin": home / "Library/Application Support"}  # fmt: skip
    return base.get(sys.platform, home / ".local/share") / "nomic.ai/GPT4All"


def _hub(home):
    """As huggingface_hub finds it, which need not be installed."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return Path(os.path.expanduser(cache))
    return Path(os.path.expanduser(os.environ.get("HF_HOME") or home / ".cache/huggingface")) / "hub"


def _ollama(folder):
    """Ollama keeps blobs by their checksum; a manifest for each name says which of them is the model."""
    for manifest in filter(os.path.isfile, sorted(folder.glob("manifests/*/*/*/*"))):  # a pipe would keep us waiting
        # not a manifest as we know it
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            with manifest.open("rb") as file:
                layers = json.loads(file.read(MANIFEST))["layers"]
            for layer in layers:
                digest = DIGEST.fullmatch(layer["digest"])
                if digest and layer["mediaType"] == "application/vnd.ollama.image.model":
                    name = f"{manifest.parent.name}:{manifest.name}"
                    yield "Ollama", name, [folder / "blobs" / f"{digest[1]}-{digest[2]}"]


def fingerprint(path: Path) -> str:
    """Tells model files apart: sha256 over the size and the first and last MiB. Not a check of the file."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(1 << 20))
        file.seek(max(0, size - (1 << 20)))
        digest.update(file.read())
    return digest.hexdigest()[:16]
