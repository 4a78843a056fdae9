"""Which kernels and how many threads are chosen, for processors and machines that this one is not."""

import pytest

from nbllm.errors import CpuError
from nbllm.runtime import cgroups, ops

ALL = [variant.name for variant in ops.VARIANTS]
V2 = {"SSE4.2"}
V3 = V2 | {"AVX", "AVX2", "FMA", "F16C"}

PROCESSORS = {  # a processor's features -> the variant that is best on it
    "Zen 4": (V3 | {"AVX-512", "VNNI"}, "avx512vnni"),
    "Skylake-X": (V3 | {"AVX-512"}, "avx512"),
    "Alder Lake": (V3 | {"AVX-VNNI"}, "avxvnni"),
    "Sapphire Rapids": (V3 | {"AVX-512", "VNNI", "AVX-VNNI"}, "avx512vnni"),
    "Zen 3": (V3, "avx2"),
    "AVX2 without FMA": (V2 | {"AVX", "AVX2", "F16C"}, "avx"),
    "Ivy Bridge": (V2 | {"AVX", "F16C"}, "avx"),
    "Sandy Bridge": (V2 | {"AVX"}, "avx"),
    "Nehalem": (V2, "x86_64v2"),
    "Core 2": (set(), "portable"),
    "Neoverse N1": ({"NEON", "DOTPROD"}, "neondot"),
    "Cortex-A72": ({"NEON"}, "neon"),
    "POWER9": (set(), "portable"),
}


def features(names):
    return {name: name in names for name in ops.cpu_features()}


@pytest.mark.parametrize("processor", PROCESSORS)
@pytest.mark.parametrize("wanted", [None, ""])
def test_the_best_variant_for_a_processor(processor, wanted):
    names, best = PROCESSORS[processor]
    chosen = ops.choose(features(names), ALL, wanted)
    assert chosen.name == best
    assert chosen.reason.startswith("the best that this processor runs")


def test_a_variant_that_is_not_built_is_passed_over():
    names, _ = PROCESSORS["Zen 4"]
    assert ops.choose(features(names), ["avx512", "avx2", "portable"]).name == "avx512"
    assert ops.choose(features(names), ["portable"]).name == "portable"


def test_the_reason_says_what_the_better_variant_needs():
    chosen = ops.choose(features(PROCESSORS["Zen 3"][0]), ["avx512vnni", "avx2", "portable"])
    assert chosen.reason == "the best that this processor runs; avx512vnni needs AVX-512, VNNI"


def test_the_reason_says_nothing_of_variants_for_other_machines():
    chosen = ops.choose(features(PROCESSORS["Zen 4"][0]), ALL)
    assert chosen.reason == "the best that this processor runs"


def test_a_slower_variant_can_be_asked_for():
    chosen = ops.choose(features(PROCESSORS["Zen 4"][0]), ALL, "portable")
    assert (chosen.name, chosen.reason) == ("portable", "NBLLM_ISA asks for it")


@pytest.mark.parametrize(
    "wanted, built, message",
    [
        (
            "sse9",
            ["avx2", "portable"],
            r"NBLLM_ISA=sse9 is not known; choose one of avx512vnni, .*portable, or unset it\.",
        ),
        ("avx", ["avx2", "portable"], r"NBLLM_ISA=avx was not built here; there are avx2, portable\. .*"),
        ("avx512vnni", ALL, r"NBLLM_ISA=avx512vnni needs AVX-512, VNNI, which this processor lacks; unset it\."),
        (None, [], r"No compiled kernels are installed for this processor; .*"),
        (None, ["neon"], r"No compiled kernels are installed for this processor; .*"),
    ],
)
def test_what_cannot_be_had_is_an_error_of_one_line(wanted, built, message):
    names, _ = PROCESSORS["Zen 3"]
    with pytest.raises(CpuError, match=f"^{message}$"):
        ops.choose(features(names), built, wanted)


def test_the_environment_names_the_variant(monkeypatch):
    monkeypatch.setattr(ops, "_chosen", None)
    monkeypatch.setenv("NBLLM_ISA", "portable")
    assert ops.variant().name == "portable"
    monkeypatch.setenv("NBLLM_ISA", "avx2")
    assert ops.variant().name == "portable"  # for the whole process


def test_what_is_built_runs_or_is_refused_by_name(monkeypatch):
    """Every variant of this installation is one that can be chosen, and every one that can be chosen is whole."""
    assert ops.built() and set(ops.built()) <= set(ALL)
    present = ops.cpu_features()
    for variant in ops.VARIANTS:
        if variant.name in ops.built() and all(present[need] for need in variant.needs):
            assert callable(ops.load(variant.name).step)


# threads


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A made-up machine: processors as lists of those that share a core, those allowed,
    and files of its control group."""

    def make(cores, allowed=None, groups=None, own_group=None):
        present = {cpu for core in cores for cpu in core}
        files = {
            f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list": ",".join(map(str, core)) + "\n"
            for core in cores
            for cpu in core
        } | (groups or {})
        if own_group is not None:
            files["/proc/self/cgroup"] = own_group
        for path, text in files.items():
            (tmp_path / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path[1:]).write_text(text)
        monkeypatch.setattr(cgroups, "ROOT", tmp_path)
        monkeypatch.setattr(ops, "Path", lambda path: tmp_path / str(path).lstrip("/"))
        monkeypatch.setattr(ops.os, "cpu_count", lambda: len(present))
        monkeypatch.setattr(ops.os, "sched_getaffinity", lambda _: allowed or present, raising=False)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)

    return make


PAIRS = [(0, 4), (1, 5), (2, 6), (3, 7)]  # four cores of two threads
V1 = "/sys/fs/cgroup/cpu/cpu.cfs_{}_us"


@pytest.mark.parametrize(
    "allowed, groups, own_group, used",
    [
        (None, None, None, 4),
        ({0, 4}, None, None, 1),
        ({0, 1, 5}, None, None, 2),
        (None, {"/sys/fs/cgroup/cpu.max": "max 100000\n"}, "0::/\n", 4),
        (None, {"/sys/fs/cgroup/cpu.max": "250000 100000\n"}, "0::/\n", 2),
        (None, {"/sys/fs/cgroup/cpu.max": "50000 100000\n"}, "0::/\n", 1),
        (None, {"/sys/fs/cgroup/cpu.max": "800000 100000\n"}, "0::/\n", 4),
        ({0, 4, 1}, {"/sys/fs/cgroup/cpu.max": "300000 100000\n"}, "0::/\n", 2),
        (None, {"/sys/fs/cgroup/user.slice/cpu.max": "300000 100000\n"}, "0::/user.slice/jupyter.service\n", 3),
        (
            None,
            {"/sys/fs/cgroup/a/cpu.max": "300000 100000\n", "/sys/fs/cgroup/a/b/cpu.max": "200000 100000\n"},
            "0::/a/b\n",
            2,
        ),
        (None, {"/sys/fs/cgroup/other/cpu.max": "100000 100000\n"}, "0::/a/b\n", 4),
        (None, {V1.format("quota"): "200000\n", V1.format("period"): "100000\n"}, "3:cpu,cpuacct:/\n", 2),
        (None, {V1.format("quota"): "-1\n", V1.format("period"): "100000\n"}, "3:cpu,cpuacct:/\n", 4),
    ],
)
def test_threads_are_the_cores_that_affinity_and_quota_leave(machine, allowed, groups, own_group, used):
    machine(PAIRS, allowed, groups, own_group)
    assert ops.threads() == (used, 8)


def test_without_a_list_of_siblings_every_processor_is_a_core(machine, monkeypatch):
    machine([(0,), (1,), (2,)])
    monkeypatch.setattr(ops, "_core", lambda cpu: cpu)
    assert ops.threads() == (3, 3)


@pytest.mark.parametrize("value, used", [("3", 3), ("16", 16), ("2,4", 2), ("", 4), ("0", 4), ("many", 4), ("²", 4),
                                         ("100000", 4), ("9" * 5000, 4)])
def test_omp_num_threads_has_the_last_word_when_it_is_a_number(machine, monkeypatch, value, used):
    machine(PAIRS, groups={"/sys/fs/cgroup/cpu.max": "400000 100000\n"}, own_group="0::/\n")
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert ops.threads() == (used, 8)
