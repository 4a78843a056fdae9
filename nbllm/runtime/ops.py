"""Which compiled kernels run here, and on how many threads.

One build holds the kernels for several instruction sets; this file knows what each needs, what the processor has, and
which one is used. It refuses to know what the kernels compute.
"""

import importlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import CpuError
from .cgroups import groups


MOST_THREADS = 1024


@dataclass(frozen=True)
class Variant:
    """The kernels compiled for one instruction set.

    Attributes
    ----------
    name : str
        As in `NBLLM_ISA` and `nbllm._kernels.NAME`.
    needs : tuple of str
        Processor features, as `cpu_features` names them.
    fused : bool
        Whether its multiply-add rounds once.
    reason : str
        Why it was chosen.
    """

    name: str
    needs: tuple
    fused: bool
    reason: str = ""


V3 = ("AVX2", "FMA", "F16C")  # what matters here of x86-64-v3

VARIANTS = (  # the best first
    Variant("avx512vnni", (*V3, "AVX-512", "VNNI"), fused=True),
    Variant("avxvnni", (*V3, "AVX-VNNI"), fused=True),
    Variant("avx512", (*V3, "AVX-512"), fused=True),
    Variant("avx2", V3, fused=True),
    Variant("avx", ("SSE4.2", "AVX"), fused=False),
    Variant("x86_64v2", ("SSE4.2",), fused=False),
    Variant("neondot", ("NEON", "DOTPROD"), fused=True),
    Variant("neon", ("NEON",), fused=True),
    Variant("portable", (), fused=False),
)

# our name -> all of NumPy's that it stands for; AVX-512 is the set that every processor since Skylake-SP has
FEATURES = {
    "SSE4.2": ("SSE3", "SSSE3", "SSE41", "POPCNT", "SSE42"),
    "AVX": ("AVX",),
    "AVX2": ("AVX2",),
    "FMA": ("FMA3",),
    "F16C": ("F16C",),
    "AVX-512": ("AVX512F", "AVX512CD", "AVX512VL", "AVX512BW", "AVX512DQ"),
    "VNNI": ("AVX512VNNI",),
    "NEON": ("ASIMD",),
    "DOTPROD": ("ASIMDDP",),
}


def cpu_features() -> dict[str, bool]:
    """Which of the features that matter here this processor and its operating system have."""
    from numpy._core._multiarray_umath import __cpu_features__ as found

    features = {name: all(found.get(part, False) for part in parts) for name, parts in FEATURES.items()}
    return features | {"AVX-VNNI": "avx_vnni" in _cpu_flags()}  # NumPy does not look for it


def _cpu_flags():
    """The words that Linux has for the processor's features; elsewhere none."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.split() for line in lines if line.startswith("flags")), [])


def built() -> list[str]:
    """Names of the variants that this installation holds."""
    return [variant.name for variant in VARIANTS if importlib.util.find_spec(f"nbllm._kernels.{variant.name}")]


def choose(features, present, wanted=None) -> Variant:
    """The variant to run.

    Parameters
    ----------
    features : dict of str to bool
        As from `cpu_features`.
    present : list of str
        As from `built`.
    wanted : str, optional
        A name that the user asked for.

    Raises
    ------
    CpuError
        `wanted` is unknown, not built, or beyond this processor; or there is nothing to choose from.
    """
    names = [variant.name for variant in VARIANTS]
    if wanted and wanted not in names:
        raise CpuError(f"NBLLM_ISA={wanted} is not known; choose one of {', '.join(names)}, or unset it.")
    if wanted and wanted not in present:
        raise CpuError(
            f"NBLLM_ISA={wanted} was not built here; there are {', '.join(present)}. Unset it to use the best."
        )
    passed_over = ""
    for variant in VARIANTS:
        if variant.name not in present or wanted not in (None, "", variant.name):
            continue
        missing = [need for need in variant.needs if not features[need]]
        if missing and wanted:
            raise CpuError(f"NBLLM_ISA={wanted} needs {', '.join(missing)}, which this processor lacks; unset it.")
        if not missing:
            reason = "NBLLM_ISA asks for it" if wanted else "the best that this processor runs" + passed_over
            return Variant(variant.name, variant.needs, variant.fused, reason)
        passed_over = passed_over or f"; {variant.name} needs {', '.join(missing)}"
    raise CpuError(
        "No compiled kernels are installed for this processor; install nbllm again with a C++ compiler present."
    )


_chosen = None


def variant() -> Variant:
    """The variant that runs in this process: `NBLLM_ISA`, or the best that the processor has."""
    global _chosen
    if _chosen is None:
        _chosen = choose(cpu_features(), built(), os.environ.get("NBLLM_ISA"))
    return _chosen


def load(name=None):
    """The kernels' module `step`, of the chosen variant or of the one named (`python` is the uncompiled one)."""
    return importlib.import_module(f"nbllm._kernels.{name or variant().name}.step")


def threads() -> tuple[int, int]:
    """(threads to use, processors present).

    As many as there are physical cores that this process may run on, cut by a container's quota; `OMP_NUM_THREADS`, if
    the user set it, has the last word.
    """
    present = os.cpu_count() or 1
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if wanted.isdecimal() and len(wanted) < 10 and 1 <= int(wanted) <= MOST_THREADS:
        return int(wanted), present
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(present))
    used = len({_core(cpu) for cpu in allowed})
    quota = _quota()
    if quota:
        used = min(used, max(1, int(quota)))
    return used, present


def _core(cpu):
    """What names the physical core of a logical processor: the list of its siblings, or the processor itself."""
    siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return siblings.read_text().strip() if siblings.exists() else cpu


def _quota():
    """Processors that control groups allow, or None: the least that any of them does."""
    return min((quota for group, _ in groups("cpu") for quota in _quota_of(group)), default=None)


def _quota_of(group):
    """[processors that one control group allows] or []: `cpu.max` holds "QUOTA PERIOD",
    two files do in the first version."""
    names = ("cpu.max",) if (group / "cpu.max").exists() else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    if not all((group / name).exists() for name in names):
        return []
    quota, period = " ".join((group / name).read_text() for name in names).split()
    return [int(quota) / int(period)] if quota not in ("max", "-1") else []
