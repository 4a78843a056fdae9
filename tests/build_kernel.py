"""Translates a kernel with the project's own translator and compiles it for one instruction set, without Meson.

For tests: of kernels that are not installed, and of variants under emulation.
"""

import importlib.util
import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np

SOURCES = Path(__file__).resolve().parents[1] / "kernels_src"

# What the results depend on is as in kernels_src/meson.build; the rest is for a short compilation.
FLAGS = [
    "-std=c++17", "-O1", "-DINLINE=inline", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off", "-w",
    "-Wno-psabi", "-shared", "-fPIC", "-fopenmp", "-fvisibility=hidden",
    "-DNDEBUG", "-DENABLE_PYTHON_MODULE", "-D__PYTHRAN__=3", "-DPYTHRAN_BLAS_NONE",
]  # fmt: skip
PROCESSOR_FLAGS = {  # variant -> as in kernels_src/meson.build
    "portable": [],
    "x86_64v2": ["-march=x86-64-v2"],
    "avx": ["-march=x86-64-v2", "-mavx"],
    "avx2": ["-march=x86-64-v3"],
    "avxvnni": ["-march=x86-64-v3", "-mavxvnni"],
    "avx512": ["-march=x86-64-v4"],
    "avx512vnni": ["-march=x86-64-v4", "-mavx512vnni"],
    "neon": ["-march=armv8-a"],
    "neondot": ["-march=armv8.2-a+dotprod"],
}


def translate(kernel, folder):
    """Path of the C++ text of a kernel file, written into a folder."""
    text = folder / f"{kernel.stem}.cpp"
    subprocess.run([sys.executable, SOURCES / "translate.py", kernel, text], check=True, timeout=1500)
    return text


def compile(
    text, variant, folder, compiler=None, python_headers=None, numpy_headers=None, suffix=None, flags=(), more=()
):
    """Path of the extension module made of C++ text, in the folder of its variant.

    By default with this system's compiler and for this Python: its headers, and the suffix of its extension modules.
    `flags` take the place of the processor's, and `more`, and CXXFLAGS of the environment, are added to all.
    """
    import pythran  # an emulated process has none

    out = folder / variant / (text.stem + (suffix or sysconfig.get_config_var("EXT_SUFFIX")))
    out.parent.mkdir(parents=True, exist_ok=True)
    headers = (
        python_headers or sysconfig.get_paths()["include"],
        numpy_headers or np.get_include(),
        pythran.get_include(),
    )
    subprocess.run(
        [*shlex.split(compiler or os.environ.get("CXX", "c++")), *FLAGS, *(flags or PROCESSOR_FLAGS[variant]), *more]
        + [option for header in headers for option in ("-isystem", header)]
        + ["-I", SOURCES / "native" / variant, *shlex.split(os.environ.get("CXXFLAGS", "")), text, "-o", out],
        check=True,
        timeout=1500,
    )
    return out


def load(path):
    """The module in a file, compiled or Python. Several of one name can be loaded, and none can be imported by it."""
    name = path.name.partition(".")[0]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules.pop(name, None)  # where Pythran's modules put themselves
    return module
