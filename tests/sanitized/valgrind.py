"""The portable kernels under Valgrind: `python valgrind.py`.

Odd sizes, no tokens, extreme numbers, every block type, a cache of every precision, every stage; in memory that was
never written, and that ends where an array does. Reads of what is not theirs, and decisions or results that depend on
what was never written, are errors. What Python does by itself is suppressed (`python.supp`).
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
INSIDE = "inside"
VALGRIND = (
    "valgrind", "--quiet", "--error-exitcode=1", "--num-callers=20", f"--suppressions={HERE / 'python.supp'}",
    "--fair-sched=yes",  # or a thread that waits for another one keeps the processor
)  # fmt: skip


def inside():
    """What Valgrind watches."""
    sys.path.insert(0, str(HERE.parent))
    import edges
    import kernel_runs
    import numpy as np
    from product_runs import KINDS, product, random_blocks

    from nbllm.runtime import ops

    kernel, random = edges.Moved(ops.load("portable")), np.random.default_rng(3)
    activations = np.concatenate([edges.FINITE, edges.NOT_FINITE])
    # what is written is looked at
    with open(os.devnull, "wb", buffering=0) as results, tempfile.TemporaryDirectory() as models:
        for name, kind in KINDS.items():
            print(name, flush=True)
            for rows, tokens in zip(edges.ROWS, edges.TOKENS, strict=True):
                blocks = random_blocks(kind, (rows, edges.columns(kind)), random)
                x = random.standard_normal((tokens, edges.columns(kind))).astype(np.float32)
                results.write(product(kernel, blocks, kind, x)[0].tobytes())
            extremes = edges.extreme_activations(name, activations)
            results.write(product(kernel, edges.extreme_blocks(name), kind, extremes)[0].tobytes())
        for run in (run for run in kernel_runs.RUNS if run not in KINDS):
            print(run, flush=True)
            path, steps = kernel_runs.write_model(Path(models), run), (*kernel_runs.RUNS[run][1], *edges.STEPS)
            results.write(kernel_runs.logits(kernel, path, steps, threads=2, prepare=edges.forget).tobytes())
            results.write(kernel_runs.shared_logits(kernel, path, edges.forget).tobytes())


def main():
    environment = os.environ | {"PYTHONMALLOC": "malloc", "NBLLM_CACHE": "off", "OMP_NUM_THREADS": "2"}
    return subprocess.run([*VALGRIND, sys.executable, __file__, INSIDE], env=environment).returncode


if __name__ == "__main__":
    sys.exit(inside() if sys.argv[1:] == [INSIDE] else main())
