"""Opens a model file by its first bytes, whatever container it is. Knows no container from within."""

from ..errors import ModelFileError
from .file import File
from .ggjt import read_llama
from .gguf import read_gguf
from .gptj import is_gptj, read_gptj

READERS = {  # first bytes -> what reads the file
    b"GGUF": read_gguf,
    b"lmgg": lambda file: read_gptj(file) if is_gptj(file.data) else read_llama(file),
    b"fmgg": read_llama,
    b"tjgg": read_llama,
}
OTHERS = {  # first bytes -> what they are
    b"lagg": "a LoRA adapter, which changes a model and is none",
    b"mmgg": "an MPT model of before GGUF",
    b"PK\x03\x04": "a zip archive, perhaps a PyTorch checkpoint",
    b"\x1f\x8b\x08\x00": "a gzip archive",
    b"<!DO": "a web page",
    b"<htm": "a web page",
    b"vers": "perhaps a Git LFS pointer, not the file it stands for",
}


def open_model(path):
    """Open a model file and read all but its tensors' bytes.

    Parameters
    ----------
    path : str or Path
        Of the first part, where a model is in several files; the others are found beside it.

    Returns
    -------
    ModelFile

    Raises
    ------
    ModelNotFoundError
        There is no such file.
    ModelFileError
        It is none that can be read; the message names the field that is wrong, its value and where it is.
    """
    file = File(path)
    magic = file.data[:4]
    if magic not in READERS:
        found = OTHERS.get(magic, f"something else (it begins with {magic!r})")
        raise ModelFileError(
            f"{file.path.name!r} is not a model file but {found}; nbllm reads GGUF, and GGML, GGMF and GGJT of 2023."
        )
    return READERS[magic](file)
