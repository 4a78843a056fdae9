"""A cache of packed weights of a test's own, and what should be in it."""

import numpy as np
import pytest

from nbllm.formats.open import open_model
from nbllm.runtime.models import architecture
from nbllm.runtime.packed import Packer
from nbllm.runtime.weights import load_weights


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty cache that this process and its children use."""
    monkeypatch.setenv("NBLLM_CACHE", str(tmp_path / "packed"))
    monkeypatch.delenv("NBLLM_CACHE_GB", raising=False)
    return tmp_path / "packed"


@pytest.fixture
def in_memory(tiny_model):
    """The packed bytes, uint8 (size,), made without any cache."""
    packer = Packer()
    with open_model(tiny_model) as gguf:
        architecture(gguf.metadata)(gguf, packer)
        return np.concatenate([piece.copy() for piece in packer.pack()])


def weights(model):
    with open_model(model) as gguf:
        return load_weights(gguf)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def in_memory_with_one_notice(model, in_memory, match):
    got = weights(model)
    np.testing.assert_array_equal(got.data, in_memory)
    assert got.path is None
    assert "\n" not in got.notice and match in got.notice and model.stem in got.notice
