"""Models by name: which are known, where they are on this machine, and how to fetch one."""

from nbllm.catalogue.find import find, pullable
from nbllm.catalogue.known import DEFAULT, KNOWN, KnownModel, known, recognised
from nbllm.catalogue.places import Found, available, models_dir
from nbllm.catalogue.pull import Pulling, pull, pulling

__all__ = [
    "DEFAULT", "KNOWN", "Found", "KnownModel", "Pulling", "available", "find", "known", "models_dir", "pull",
    "pullable", "pulling", "recognised",
]  # fmt: skip
