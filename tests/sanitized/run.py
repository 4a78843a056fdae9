"""Runs the tests of the kernels with an nbllm whose kernels are watched by sanitizers: `python run.py FOLDER [TESTS]`.

What a sanitizer finds ends the process, so a test that does not pass is a finding.
"""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
# which go through the variants themselves
OF_ALL = ("unit/test_kernels.py", "unit/test_edges.py", "unit/test_limits.py")
OF_ONE = ("unit/test_products.py", "unit/test_architectures.py", "unit/test_engine.py", "sanitized/check_extremes.py")
# as in kernels_src/meson.build
WATCHED = "-fsanitize=address,undefined,float-cast-overflow -fno-sanitize-recover=all -g1"


def library(name):
    return subprocess.run(
        ["c++", f"-print-file-name={name}"], check=True, capture_output=True, text=True
    ).stdout.strip()


def variants(folder):
    """Those in the folder that this processor runs."""
    sys.path.insert(0, str(folder))
    from nbllm.runtime import ops

    present = ops.cpu_features()
    return [
        variant.name for variant in ops.VARIANTS if variant.name in ops.built() and all(map(present.get, variant.needs))
    ]


def main(folder, tests):
    environment = os.environ | {
        "PYTHONPATH": str(folder),
        "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",  # Python itself keeps memory until its end
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "OMP_NUM_THREADS": "2",
        "CXXFLAGS": WATCHED,  # for what tests compile
    }
    command = [sys.executable, "-m", "pytest", "-q", "--timeout", "1200", "--capture", "no"]
    runs = [("", OF_ALL), *((variant, OF_ONE) for variant in variants(folder))]
    wrong = 0
    for variant, named in runs:
        print(f"{variant or 'all variants'}:", flush=True)
        ran = subprocess.run([*command, *(tests or named)], cwd=TESTS, env=environment | {"NBLLM_ISA": variant})
        wrong += ran.returncode != 0
    return f"{wrong} of {len(runs)} runs did not pass" if wrong else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
