"""What tests run in processes that multiprocessing starts, which must find it by the name of a module."""

import nbllm
from nbllm.errors import NbLLMError


def logits(path, threads, ids):
    """The bytes of a model's logits, or what was told instead."""
    try:
        with nbllm.load(path, threads=threads) as model:
            return model.logits(ids).tobytes()
    except NbLLMError as error:
        return str(error)
