"""Installs the "Local LLM" kernelspec, for this Python, where Jupyter looks for it.

A wheel brings it along already; this is for editable installs, and for other places. Knows nothing of the kernel.
"""

import importlib.metadata
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nbllm
from nbllm.catalogue import find, known
from nbllm.errors import NbLLMError, OptionError

NAME = "nbllm"


def install(user=False, sys_prefix=False, prefix=None, name=None, display_name=None, model=None) -> Path:
    """Install the kernelspec and return its folder. Without a place it is for this user.

    Parameters
    ----------
    user, sys_prefix, prefix
        Where: this user's Jupyter folder, this Python's environment, or any prefix. At most one.
    name, display_name : str
        What Jupyter calls it on the command line, and in its menus; by default made of the model's name if there is
        one.
    model : str or path, optional
        The model of its notebooks: a name or a path, as `nbllm.load` takes it; by default the one in their settings.

    Raises
    ------
    OptionError
        More than one place, or a name that Jupyter does not take.
    ModelNotFoundError
        The model is not on this machine.
    NbLLMError
        The folder cannot be written, or this installation lacks its files.
    """
    from jupyter_client.kernelspec import KernelSpecManager

    if sum((bool(user), bool(sys_prefix), prefix is not None)) > 1:
        raise OptionError("give one of --user, --sys-prefix and --prefix")
    if model is not None:
        path = find(model)
        model = known(path.name).name if known(path.name) else str(path.absolute())
        name = name or f"{NAME}-{re.sub(r'[^a-z0-9._-]+', '-', path.stem.lower())}"
        display_name = display_name or f"Local LLM: {path.stem if model == str(path.absolute()) else model}"
    place = sys.prefix if sys_prefix else prefix
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(_source(), Path(folder) / "spec"))
        spec = json.loads((copy / "kernel.json").read_text(encoding="utf-8"))
        spec["argv"][0] = sys.executable  # a bare "python" would be whichever Jupyter runs on
        spec["argv"] += [f"--NbLLM.model={model}"] if model is not None else []
        spec["display_name"] = display_name or spec["display_name"]
        (copy / "kernel.json").write_text(json.dumps(spec, indent=2) + "\n", encoding="utf-8")
        try:
            return Path(
                KernelSpecManager().install_kernel_spec(str(copy), name or NAME, user=place is None, prefix=place)
            )
        except ValueError as error:
            raise OptionError(str(error)) from error
        except OSError as error:
            raise NbLLMError(
                f"the kernelspec cannot be written: {error}; give another place, --user for one"
            ) from error


def _source() -> Path:
    """The kernelspec beside the package in a source tree or editable install, else where the wheel put it."""
    beside = Path(nbllm.__file__).resolve().parents[1] / "kernelspec"
    if (beside / "kernel.json").is_file():
        return beside
    for file in importlib.metadata.files("nbllm") or ():
        if file.parts[-3:] == ("kernels", NAME, "kernel.json"):
            return Path(file.locate()).parent
    raise NbLLMError("this installation of nbllm has lost its kernelspec; install it again")
