"""The architectures: one file each, found by the name that a file gives in `general.architecture`."""

from ...errors import ModelFileError
from .llama import Llama

ARCHITECTURES = {"llama": Llama}


def architecture(metadata):
    """The class for a file.

    Raises
    ------
    ModelFileError
        The file names none, or one that is not here.
    """
    name = metadata.get("general.architecture")
    if name not in ARCHITECTURES:
        raise ModelFileError(
            f"the file's architecture is {name!r}, which nbllm does not run yet; it runs {', '.join(ARCHITECTURES)}."
        )
    return ARCHITECTURES[name]
