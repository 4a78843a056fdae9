"""What `nbllm info` and `%chat info` say: the model, the processor, and what was chosen for them."""

import nbllm
from nbllm.catalogue import models_dir
from nbllm.errors import CpuError
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
    return "\n".join(f"{name:10} {value}" for name, value in lines)


def _kernels():
    try:
        variant = ops.variant()
    except CpuError as error:  # it is what the user wants to know
        return f"none: {error}"
    return f"{variant.name}: {variant.reason}"
