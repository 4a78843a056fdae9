"""Fixtures that all tests share: the models they run on."""

import pytest
import tiny_gguf


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Path of a small random model: architecture llama, byte-level BPE, ChatML template."""
    return tiny_gguf.write_llama(tmp_path_factory.mktemp("models") / "tiny.gguf")
