"""Variants that this processor does not have, or may not have: emulated,
they give the very bits of the uncompiled kernels.

By `make test-emulated`, on Debian on an x86-64 processor with AVX2. An older processor is QEMU's (an instruction that
it did not have ends the process); AVX-512 and AVX-VNNI, which QEMU lacks, are SIMDe's, compiled in the place of the
compiler's own header; a 64-bit ARM processor is QEMU's, with Debian's Python for it in the folder that NBLLM_ARM64
names.
"""

import os
import subprocess
import sys
from pathlib import Path

import build_kernel
import kernel_runs
import numpy as np
import pytest

from nbllm.runtime import ops

HERE = Path(__file__).parent
TESTS = HERE.parent
PROBE = TESTS / "lanes_probe.py"
FUSED = {variant.name: variant.fused for variant in ops.VARIANTS}


def here():
    """A process on this processor."""
    return [sys.executable], {}


def x86(cpu):
    """A process on an older x86-64 processor."""
    return ["qemu-x86_64", "-cpu", cpu, sys.executable], {}


def arm(cpu):
    """A process on a 64-bit ARM processor."""
    root = Path(os.environ["NBLLM_ARM64"])
    return ["qemu-aarch64", "-cpu", cpu, "-L", root, root / "usr/bin/python3"], {"packages": root / "packages"}


def arm_compiler():
    root = Path(os.environ["NBLLM_ARM64"])
    python = next(path.name for path in (root / "usr/include").glob("python3.*"))
    return {
        "compiler": "aarch64-linux-gnu-g++",
        "python_headers": root / "usr/include" / python,
        "numpy_headers": root / "packages/numpy/_core/include",
        "more": ["-idirafter", root / "usr/include"],
    }


def native():
    return {}


def simde():
    return {"flags": ["-march=x86-64-v3", "-I", HERE / "simde"]}


MACHINES = [  # variant, how it is compiled, where it runs, the variant that is chosen there
    ("x86_64v2", native, lambda: x86("Nehalem"), "x86_64v2"),
    ("avx", native, lambda: x86("SandyBridge"), "avx"),
    ("avx2", native, lambda: x86("Haswell"), "avx2"),
    ("avxvnni", simde, here, None),
    ("avx512", simde, here, None),
    ("avx512vnni", simde, here, None),
    ("neon", arm_compiler, lambda: arm("cortex-a72"), "neon"),
    ("neondot", arm_compiler, lambda: arm("neoverse-n1"), "neondot"),
    ("portable", arm_compiler, lambda: arm("cortex-a53"), "neon"),
]


@pytest.fixture(scope="session")
def texts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    return [build_kernel.translate(kernel, folder) for kernel in (build_kernel.SOURCES / "step.py", PROBE)]


@pytest.fixture(scope="session")
def expected(tmp_path_factory):
    """fused -> what the uncompiled kernels give."""
    results = {}
    for fused in (False, True):
        with kernel_runs.uncompiled(fused) as kernel:
            results[fused] = kernel_runs.probe(build_kernel.load(PROBE))
            for run, (_, steps) in kernel_runs.RUNS.items():
                path = kernel_runs.write_model(tmp_path_factory.mktemp("models"), run)
                results[fused][run] = kernel_runs.logits(kernel, path, steps)
                results[fused][f"{run}, three threads"] = results[fused][run]
    return results


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("variant, compiler, machine, chosen", MACHINES, ids=[machine[0] for machine in MACHINES])
def test_an_emulated_variant_has_the_bits_of_the_uncompiled_kernels(
    variant, compiler, machine, chosen, texts, expected, tmp_path
):
    for text in texts:
        module = build_kernel.compile(text, variant, tmp_path, suffix=".so", **compiler())
    process, extra = machine()
    path = os.pathsep.join(map(str, [*extra.values(), TESTS.parent, TESTS]))
    ran = subprocess.run(
        [*process, HERE / "run_kernels.py", module.parent, tmp_path / "out.npz"],
        env=os.environ | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", "NBLLM_CACHE": "off"},
        capture_output=True,
        text=True,
        timeout=2500,
    )
    assert ran.returncode == 0, ran.stderr
    with np.load(tmp_path / "out.npz") as out:
        assert kernel_runs.differences(dict(out), expected[FUSED[variant]]) == {}
    if chosen:
        assert ran.stdout.split()[-1] == chosen
