"""Runs in the emulated process: puts the kernels in a folder through all runs, and writes what they give.

usage: run_kernels.py FOLDER OUT.npz

FOLDER has the extension modules `step` and `lanes_probe` of one variant. Prints the variant that would be chosen here.
"""

import sys
import tempfile
from pathlib import Path

import build_kernel
import kernel_runs
import numpy as np

from nbllm.runtime import ops

folder, out = map(Path, sys.argv[1:])
step, probe = (build_kernel.load(folder / f"{name}.so") for name in ("step", "lanes_probe"))
results = kernel_runs.probe(probe)
with tempfile.TemporaryDirectory() as models:
    for run, (_, steps) in kernel_runs.RUNS.items():
        path = kernel_runs.write_model(Path(models), run)
        results[run] = kernel_runs.logits(step, path, steps)
        results[f"{run}, three threads"] = kernel_runs.logits(step, path, steps, threads=3)
np.savez(out, **results)
features = ops.cpu_features() | {"AVX-VNNI": False}  # QEMU shows the flags of the processor that it runs on
print(ops.choose(features, [variant.name for variant in ops.VARIANTS]).name)
