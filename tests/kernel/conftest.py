"""Jupyter kernels with nbllm loaded and a model chosen, but not loaded yet."""

from contextlib import contextmanager

import pytest
from kernel.kernels import Kernel


@pytest.fixture
def fresh_kernel(default_model):
    """A Jupyter kernel of the test's own."""
    with _started(default_model) as kernel:
        yield kernel


@pytest.fixture(scope="module")
def shared_kernel(default_model):
    with _started(default_model) as kernel:
        yield kernel


@pytest.fixture
def kernel(shared_kernel):
    """The Jupyter kernel of this file's tests, with a new conversation."""
    assert shared_kernel.run("%chat new").reply["status"] == "ok"
    return shared_kernel


@contextmanager
def _started(model):
    with Kernel() as kernel:
        prepared = kernel.run(f"%load_ext nbllm\n%config NbLLM.model = {str(model)!r}\n%config NbLLM.seed = 1")
        assert prepared.reply["status"] == "ok", prepared.reply
        yield kernel


@pytest.fixture(scope="session")
def local_llm_spec(tmp_path_factory):
    """The kernelspec of the Local LLM kernel, installed by its own installer."""
    from nbllm.jupyter.install import install

    prefix = tmp_path_factory.mktemp("prefix")
    install(prefix=prefix)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(prefix / "share" / "jupyter"))
        yield "nbllm"


@pytest.fixture
def local_llm(local_llm_spec, default_model):
    with Kernel(local_llm_spec, [f"--NbLLM.model={default_model}", "--NbLLM.seed=1"]) as kernel:
        yield kernel
