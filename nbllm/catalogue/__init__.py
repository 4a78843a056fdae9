"""Models by name: which are known, where they are on this machine, and how to fetch one. Opens no model file."""

from nbllm.catalogue.find import Found, available, find, models_dir
from nbllm.catalogue.known import DEFAULT, KNOWN, KnownModel, known
from nbllm.catalogue.pull import Pulling, pull, pulling

__all__ = [
    "DEFAULT", "KNOWN", "Found", "KnownModel", "Pulling", "available", "find", "known", "models_dir", "pull", "pulling",
]  # fmt: skip
