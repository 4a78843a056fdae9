"""Measures a model in a process of its own, and collects what that tells. `process.py` is the process."""

import json
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, field

from nbllm.bench.memory import Memory, Peak
from nbllm.errors import NbLLMError


@dataclass
class Measured:
    """What a process told.

    Attributes
    ----------
    values : dict of str to float
        Of figures, `load_s` and `first_token_s` among them.
    missing : dict of str to str
        Figures that could not be measured, and why.
    memory : Memory or None
        The most that was seen.
    from_disk : int or None
        Bytes fetched from a disk until the first token.
    files : list of str
        The model's, and that of its packed weights if they are in one.
    """

    values: dict = field(default_factory=dict)
    missing: dict = field(default_factory=dict)
    memory: Memory | None = None
    from_disk: int | None = None
    files: list = field(default_factory=list)


def measure(path, threads, figures=(), watch=False, progress=lambda figure: None) -> Measured:
    """Load a model in a new process and measure the figures named.

    Parameters
    ----------
    path : path
    threads : int
    figures : iterable of str
        Names in `figures.FIGURES`.
    watch : bool
        Look at the process's memory all the time, which costs it some, and not only after every figure.
    progress : callable
        Called with the name of every figure before it is measured.

    Raises
    ------
    NbLLMError
        The model cannot be run.
    """
    command = [sys.executable, "-m", "nbllm.bench.process", str(path), *figures]
    command += ["--threads", str(threads), "--begun", repr(time.time())]
    found = Measured()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as process:
        try:
            with Peak(process.pid) if watch else nullcontext() as peak:
                for line in process.stdout:
                    _take(json.loads(line), found, progress)
        except BaseException:  # an interrupt too
            process.kill()
            raise
    if process.returncode:
        raise NbLLMError(f"the process that measured {path} ended with status {process.returncode}")
    if watch and peak.memory:
        found.memory = peak.memory | found.memory
    return found


def _take(told, found, progress):
    if "error" in told:
        raise NbLLMError(told["error"])
    if "files" in told:
        found.files = told["files"]
    elif "begun" in told:
        progress(told["begun"])
    elif "missing" in told:
        found.missing[told["figure"]] = told["missing"]
    else:
        found.values[told["figure"]] = told["value"]
        if "private" in told:
            found.memory = Memory(told["private"], told["mapped"]) | found.memory
        if told["figure"] == "first_token_s":
            found.from_disk = told.get("from_disk")
