"""What architectures share: checked reading of hyper-parameters and tensors, and the order of rope's pairs."""

import numpy as np

from ...errors import ModelFileError
from ...formats.blocks import dequantize
from ...formats.file import short, where

MISSING = object()


class Source:
    """The metadata and tensors of one file, each checked as it is taken.

    Parameters
    ----------
    gguf : formats.file.ModelFile
    """

    def __init__(self, gguf):
        self.metadata, self.tensors = gguf.metadata, gguf.tensors
        self.prefix = gguf.metadata["general.architecture"]
        self._left = set(gguf.tensors)  # tensors that nobody has asked for

    def number(self, key, low, high, default=MISSING, kind=int):
        """The value of a key of this architecture, within low and high."""
        key = f"{self.prefix}.{key}"
        value = self.metadata.get(key, default)
        if value is MISSING:
            raise ModelFileError(f"the file lacks {key!r}, without which it cannot be run; use another file.")
        if isinstance(value, np.ndarray) and value.size and (value == value[0]).all():
            value = value[0].item()  # some writers give one value for each layer
        # what is no number, or infinite, leaves no number when divided by 1, and that counts as true
        if isinstance(value, bool) or not isinstance(value, (int, float)) or (kind is int and value % 1):
            raise ModelFileError(
                f"{key!r} is {short(value)}{where(self.metadata, key)}, not one {'whole ' * (kind is int)}number: "
                "nbllm cannot run this file."
            )
        if not low <= value <= high:
            at = where(self.metadata, key) if key in self.metadata else ", by what else the file says"
            raise ModelFileError(
                f"{key!r} is {value}{at}, outside of {low} to {high}: the file is damaged, or not supported."
            )
        return kind(value)

    def word(self, key, default):
        """The text of a key of this architecture."""
        key = f"{self.prefix}.{key}"
        value = self.metadata.get(key, default)
        if not isinstance(value, str):
            at = where(self.metadata, key)
            raise ModelFileError(f"{key!r} is {short(value)}{at}, not a text: the file is damaged.")
        return value

    def flag(self, key, default):
        """The truth value of a key of this architecture."""
        key = f"{self.prefix}.{key}"
        value = self.metadata.get(key, default)
        if not isinstance(value, (bool, np.bool_)):
            at = where(self.metadata, key)
            raise ModelFileError(f"{key!r} is {short(value)}{at}, neither true nor false: the file is damaged.")
        return bool(value)

    def has(self, name):
        return name in self.tensors

    def need(self, name):
        """Refuse a file that has no tensor of this name."""
        if name not in self.tensors:
            raise ModelFileError(f"tensor {name!r} is missing from the file; fetch it again, or use another.")

    def tensor(self, name, *shape):
        """A tensor that must be there, in this shape."""
        self.need(name)
        tensor = self.tensors[name]
        self._left.discard(name)
        if tensor.shape != shape:
            raise ModelFileError(
                f"tensor {name!r} (from byte {tensor.offset}) has shape {tensor.shape}, not {shape}: the file is "
                "damaged or not supported."
            )
        return tensor

    def array(self, name, *shape):
        """float32 (shape): a tensor's values."""
        tensor = self.tensor(name, *shape)
        return dequantize(tensor.block_type, tensor.read().reshape(*shape[:-1], -1))

    def refuse_others(self):
        """Refuse a file that has more tensors than those asked for: they would have to be computed with and are not."""
        if self._left:
            name = min(self._left)
            raise ModelFileError(
                f"the file has tensor {name!r} (from byte {self.tensors[name].offset}), which nbllm does not compute "
                f"with for {self.prefix!r}: use another."
            )


def halves_order(heads, dim, rotated):
    """The order of a matrix's rows that brings rope's adjacent pairs (2j, 2j + 1) to (j, j + rotated / 2),
    in every head.

    Queries and keys are both reordered, so their products stay the same.

    Returns
    -------
    int64 (heads * dim,)
    """
    head = np.concatenate([np.arange(0, rotated, 2), np.arange(1, rotated, 2), np.arange(rotated, dim)])
    return (np.arange(heads)[:, None] * dim + head).ravel()
