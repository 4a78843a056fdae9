"""The build: kernels in Python become the same C++ text for all instruction sets,
and what is installed is up to date."""

import hashlib
import platform
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "kernels_src"
VARIANTS = ["portable"] + {
    "x86_64": ["x86_64v2", "avx", "avx2", "avxvnni", "avx512", "avx512vnni"],
    "aarch64": ["neon", "neondot"],
}.get(platform.machine().lower().replace("amd64", "x86_64").replace("arm64", "aarch64"), [])

KERNEL = """
from lanes import fma, load_f32, splat_f32, store_f32

def put(a, i, v):
    store_f32(a, i, v)

def swap(a, b):
    x = load_f32(a, 0)
    put(a, 0, load_f32(b, 0))
    put(b, 0, x)

# pythran export run(float32[:], float32[:])
def run(a, b):
    zero = splat_f32(0.0)
    swap(a, b)
    store_f32(a, 0, fma(load_f32(a, 0), splat_f32(2.0), zero))
"""


def translate(text, folder):
    """Run the build's translator; its process, whose `cpp` member is the C++ text if it wrote one."""
    kernel, out = folder / "tiny.py", folder / "tiny.cpp"
    kernel.write_text(text)
    ran = subprocess.run(
        [sys.executable, SOURCES / "translate.py", kernel, out], capture_output=True, text=True, timeout=100
    )
    ran.cpp = out.read_text() if out.exists() else None
    return ran


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    ran = translate(KERNEL, tmp_path_factory.mktemp("kernel"))
    assert ran.returncode == 0, ran.stderr
    return ran.cpp


def test_vectors_of_constants_are_made_by_the_native_function(tiny):
    assert "splat_f32{}(0.0)" in tiny and "splat_f32{}(2.0)" in tiny


def test_a_load_stays_before_the_store_that_would_change_it(tiny):
    body = tiny[tiny.index("swap::operator()") :]
    assert body.index("load_f32{}(a, 0L)") < body.index("call(put(), a, 0L") < body.index("call(put(), b, 0L, x)")


def test_the_text_names_no_instruction_set_and_includes_the_vocabulary_once(tiny):
    assert tiny.count("#include") - tiny.count("#include <pythonic/") - tiny.count("#include <omp.h>") == 1
    assert tiny.count('#include "lanes.hpp"') == 1


def test_a_kernel_that_pythran_refuses_is_one_message_with_its_place(tmp_path):
    ran = translate(KERNEL.replace("splat_f32(0.0)", "lambda: yield_nothing"), tmp_path)
    assert ran.returncode == 1 and ran.cpp is None
    assert "tiny.py" in ran.stderr and "Traceback" not in ran.stderr


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_installed_kernels_are_built_from_the_present_sources(variant):
    sources = sorted(path for path in SOURCES.glob("*.py") if path.name != "translate.py")
    fingerprint = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    # Read, not imported: this processor may lack the variant's instructions.
    built = Path(find_spec(f"nbllm._kernels.{variant}.step").origin).read_bytes()
    assert fingerprint.encode() in built, "the installed kernels are stale: run `make test`, or install nbllm again"


def test_every_variant_can_be_asked_for_by_its_name():
    table = re.findall(r"'(\w+)': \['-m", (SOURCES / "meson.build").read_text())
    (choices,) = re.findall(r"choices: \[(.*)\]", (SOURCES.parent / "meson.options").read_text())
    assert set(re.findall(r"\w+", choices)) == set(table) > {"portable", "neon"}
