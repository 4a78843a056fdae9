"""What `nbllm info`, `%chat info` and `%chat prompt` say: the model, the processor, what was chosen, what was sent."""

import nbllm
from nbllm.catalogue import models_dir
from nbllm.errors import CpuError, printable
from nbllm.runtime import ops


def info(model=None) -> str:
    """Lines about this installation, and about a model if there is one.

    Parameters
    ----------
    model : Model, optional

    Returns
    -------
    str
        One line for each thing, without an end of line after the last.
    """
    used, present = ops.threads()
    features = ops.cpu_features()
    lines = [("nbllm", nbllm.__version__)]
    if model is None:
        lines += [("model", "none is loaded"), ("threads", f"{used} of {present} processors")]
    else:
        path = model.engine.weights.path
        place = f"mapped from {path}" if path else "in this process's own memory"
        memory = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in model.engine.memory.items())
        lines += [
            ("model", f"{model.name}, {model.path}"),
            ("context", f"{model.context:,} tokens"),
            ("memory", memory),
            ("packed", f"{model.engine.weights.data.nbytes / 1e6:,.0f} MB, {place}"),
            ("threads", f"{model.engine.threads} of {present} processors"),
        ]
    lines += [
        ("processor", "  ".join(f"{name} {'yes' if has else 'no'}" for name, has in features.items())),
        ("kernels", _kernels()),
        ("models in", str(models_dir())),
    ]
    return "\n".join(f"{name:10} {printable(value)}" for name, value in lines)


def sent(chat=None) -> str:
    """The last prompt of a conversation, as the model got it: its text and its token ids.

    Special tokens are written as the vocabulary writes them. Characters that cannot be seen are escaped.
    """
    if chat is None or not chat.sent:
        return "nothing was sent yet; ask with %%chat"
    ids = chat.sent
    text = printable(chat.model.detokenize(ids), kept="\n\t")
    return f"{text}\n\n{len(ids)} token ids: {' '.join(map(str, ids))}"


def _kernels():
    try:
        variant = ops.variant()
    except CpuError as error:  # it is what the user wants to know
        return f"none: {error}"
    return f"{variant.name}: {variant.reason}"
