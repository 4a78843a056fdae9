"""Runs the tests of the kernels with the copy that `build.py` made: `python run.py FOLDER`.

What a sanitizer finds ends the process, so a test that does not pass is a finding.
"""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
RUN = ("unit/test_engine.py", "unit/test_products.py", "unit/test_architectures.py", "sanitized/check_extremes.py")


def library(name):
    return subprocess.run(
        ["c++", f"-print-file-name={name}"], check=True, capture_output=True, text=True
    ).stdout.strip()


def main(folder, tests):
    environment = os.environ | {
        "PYTHONPATH": str(folder),
        "LD_PRELOAD": f"{library('libasan.so')} {library('libubsan.so')}",
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1",  # Python itself keeps memory until its end
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "OMP_NUM_THREADS": "2",
    }
    command = [sys.executable, "-m", "pytest", "-q", "--timeout", "1200", *(tests or RUN)]
    return subprocess.run(command, cwd=TESTS, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]).resolve(), sys.argv[2:]))
