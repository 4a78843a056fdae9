"""What all tests share: the two models, and a place of their own for everything that Jupyter and nbllm write."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def own_place(tmp_path_factory):
    """Nothing of the user's settings is read, and `import nbllm` finds the installed package,
    not this folder's sources."""
    place = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
            folder = place / name.lower()
            folder.mkdir()
            patch.setenv(name, str(folder))
        patch.setenv("NBLLM_CACHE", str(place / "packed"))
        patch.setenv("PYTHONSAFEPATH", "1")
        patch.chdir(place)
        yield


@pytest.fixture(scope="session")
def default_model():
    """Path of SmolLM2-135M-Instruct, pulled if it is not here yet; NBLLM_TEST_MODEL names another copy."""
    given = os.environ.get("NBLLM_TEST_MODEL")
    if given:
        return Path(given).resolve(strict=True)
    from nbllm.catalogue.pull import pull

    return pull()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Path of a small seeded model: architecture llama, byte-level BPE, a chat template."""
    from tiny_gguf import write_llama

    return write_llama(tmp_path_factory.mktemp("models") / "tiny.gguf")
