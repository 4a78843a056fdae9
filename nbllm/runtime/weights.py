"""A model's weights, ready for the kernels: mapped or read from the cache, or laid out now, in the cache or in memory.

Brings together the file, the architecture that says what to pack, and the cache. Computes nothing with them.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelFileError, why
from . import packed_cache
from .arrays import zeros
from .events import Packing, Reading, StopFlag, finish
from .mapping import intact, mapped
from .models import architecture
from .packed import Packer

SAMPLE = 4096  # bytes, at the beginning, the middle and the end of every tensor
STEP = 1 << 25  # bytes between two events


@dataclass(frozen=True)
class Weights:
    """What the engine needs of a model; the model's file may be closed.

    Attributes
    ----------
    model
        The architecture's description (`models/`), whose offsets point into `data`.
    data : uint8 (size,)
    path : Path or None
        The file of the cache that `data` is mapped from; None if it is in this process's own memory.
    notice : str or None
        Why it is in memory, in one line, if that is not what the user chose.
    """

    model: Any
    data: np.ndarray
    path: Path | None = None
    notice: str | None = None

    def intact(self) -> bool:
        """Whether they can be read, for some seconds at least.
        If not, their file is deleted: they are to be made anew."""
        if self.path is None or intact(self.data):
            return True
        packed_cache.discard(self.path)
        return False

    def check(self):
        """To be called before each step: whoever reads what was cut off a mapped file is ended.

        Raises
        ------
        ModelFileError
            Somebody has cut the file in the cache, or is about to change it.
        """
        if not self.intact():
            raise ModelFileError(
                f"the packed weights in {str(self.path)!r} were changed or cut short by another program while they "
                "were in use; load the model again, then they are made anew"
            )


def load_weights(gguf) -> Weights:
    """As `packing`, without the events."""
    return finish(packing(gguf))


def packing(gguf, stop: StopFlag | None = None):
    """Get a model's weights ready. A generator, for a worker's job: yields Packing or Reading, if there is something to
    be done, and returns Weights.

    Parameters
    ----------
    gguf : formats.file.ModelFile
    stop : StopFlag, optional
        Set it from another thread to stop.

    Raises
    ------
    ModelFileError
        The model cannot be run, or its file was cut short meanwhile.
    Stopped
        The flag was set; nothing is left behind.
    """
    packer = Packer()
    model = architecture(gguf.metadata)(gguf, packer)
    stop = stop or StopFlag()
    folder = notice = None
    try:
        if (folder := packed_cache.folder()) is not None:
            key = content_key(gguf, packer)
            file = packed_cache.find(folder, key, packer.size)
            if file is None:
                pieces = _stoppable(packer.pack(), stop)
                file = yield from packed_cache.store(folder, key, packer.size, gguf.path.stem, pieces)
            with file:
                data = mapped(file, packed_cache.HEADER + packer.size, packed_cache.HEADER)
                if data is not None:
                    return Weights(model, data, packed_cache.path(folder, key))
                pieces = _stoppable(packed_cache.pieces(file, packer.size), stop)
                return Weights(model, (yield from _in_memory(packer.size, pieces, Reading)))
    except OSError as error:
        cache = f"the cache in {folder}" if folder else "the cache"
        notice = (
            f"The weights of {gguf.path.stem} are laid out in memory, {packer.size / 1e9:.1f} GB, now and the next "
            f"time: {cache} cannot take them ({why(error)})."
        )
    pieces = _stoppable(packer.pack(), stop)
    return Weights(model, (yield from _in_memory(packer.size, pieces, Packing)), notice=notice)


def _in_memory(size, pieces, progress):
    data = zeros(size, np.uint8)
    done = 0
    for piece in pieces:
        data[done : done + piece.size] = piece
        done += piece.size
        if done // STEP > (done - piece.size) // STEP or done == size:
            yield progress(done, size)
    return data


def _stoppable(pieces, stop):
    for piece in pieces:
        stop.look("Stopped before the model was loaded.")
        yield piece


def content_key(gguf, packer) -> str:
    """Names packed bytes by what they are made of, whatever the file's path and time; takes a few milliseconds.

    SHA-256 over the plan of the packing, the file's header and size, and three samples of every tensor. Training,
    fine-tuning, merging and quantising change nearly every block of the tensors they touch, so files that differ by
    any of them differ in the samples; so do files that were cut, shifted or filled up with zeros from some place on.
    What it would not notice is a change of a few bytes between the samples: after a repair of a damaged model file,
    clear its packed form.
    """
    digest = hashlib.sha256(packer.plan())
    digest.update(gguf.read(0, min(tensor.offset for tensor in gguf.tensors.values())))
    digest.update(f"{gguf.size}".encode())
    for tensor in gguf.tensors.values():
        last = max(0, tensor.nbytes - SAMPLE)
        for start in (0, last // 2, last):
            digest.update(tensor.read(start, min(start + SAMPLE, tensor.nbytes)))
    return digest.hexdigest()[:32]
