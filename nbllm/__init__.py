"""nbllm: a large language model inside the Jupyter notebook, on your own processor, from a file on your own disk.

The public names. Nothing heavy is imported until one of them is used.

    import nbllm
    model = nbllm.load()              # or nbllm.load("path/to/model.gguf")
    chat = nbllm.Chat(model)
    print(chat("hello"))

In a notebook: `%load_ext nbllm`, then a cell that starts with `%%chat`.
"""

from importlib import import_module

__version__ = "0.1.0"
__all__ = ["Chat", "Map", "load", "map", "panel"]

_HOMES = {
    "load": "nbllm.model",
    "Chat": "nbllm.chat.conversation",
    "Map": "nbllm.chat.map",
    "map": "nbllm.chat.map",
    "panel": "nbllm.jupyter.panel",
}


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'nbllm' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted({*globals(), *__all__})


def load_ipython_extension(shell):
    """Called by `%load_ext nbllm`: registers `%%chat` and `%chat`. Loads no model and prints nothing."""
    from nbllm.jupyter.magics import register

    register(shell)


def unload_ipython_extension(shell):
    """Called by `%unload_ext nbllm`: removes the magics, ends the worker and frees the model."""
    from nbllm.jupyter.magics import unregister

    unregister(shell)
