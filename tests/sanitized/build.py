"""Copies the installed nbllm into a folder, with kernels that AddressSanitizer and UndefinedBehaviorSanitizer watch:
`python build.py FOLDER`. Only the variants that are compiled so are in the copy.
"""

import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import build_kernel  # noqa: E402

import nbllm  # noqa: E402

VARIANTS = ("portable", "avx2")
FLAGS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g1")


def main(folder):
    package, kernels = folder / "nbllm", folder / "nbllm" / "_kernels"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(Path(nbllm.__file__).parent, package, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    for kernel in ("step", "limits"):
        text = folder / f"{kernel}.cpp"
        print(f"translating {kernel}", flush=True)
        program, source = (build_kernel.SOURCES / name for name in ("translate.py", f"{kernel}.py"))
        subprocess.run([sys.executable, program, source, text], check=True)
        for variant in VARIANTS:
            print(f"compiling {kernel} for {variant}", flush=True)
            build_kernel.compile(text, variant, kernels, more=FLAGS)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
