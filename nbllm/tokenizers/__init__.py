"""Tokenizers: text <-> token ids, from a model file's metadata. Refuses to know files, networks and conversations."""

from ..errors import ModelFileError
from ..formats.file import where
from .base import StreamDecoder, Tokenizer, read_key
from .bpe import BPE
from .looking import unwatched
from .prefixes import Prefixes
from .spm import SPM, SpacedBPE
from .wordpiece import WordPiece

MODELS = {"gpt2": BPE, "llama": SPM, "bert": WordPiece, "gemma4": SpacedBPE}  # tokenizer.ggml.model -> class

__all__ = ["Prefixes", "StreamDecoder", "Tokenizer", "load_tokenizer", "unwatched"]


def load_tokenizer(metadata):
    """The tokenizer that a model file describes.

    Parameters
    ----------
    metadata : dict
        Of a GGUF file, its `tokenizer.ggml.*` keys.

    Returns
    -------
    Tokenizer

    Raises
    ------
    ModelFileError
        The tokenizer is of a kind that is not supported, or its keys are missing or contradict each other.
    """
    model = read_key(metadata, "model", str)
    if model not in MODELS:
        known = ", ".join(MODELS)
        raise ModelFileError(
            f"tokenizer.ggml.model is {model[:80]!r}{where(metadata, 'tokenizer.ggml.model')}, which is not supported; "
            f"use a model file with one of {known}."
        )
    return MODELS[model](metadata)
