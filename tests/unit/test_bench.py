"""`nbllm bench`: what it measures, what part of the machine's limits that is, and how it is told."""

import json

import pytest
from tiny_gguf import write_llama

import nbllm
from nbllm import cli
from nbllm.bench import machine, memory
from nbllm.bench.figures import FIGURES, Bench, Missing
from nbllm.bench.report import SHOWN, Work, fractions, text, work
from nbllm.formats.open import open_model
from nbllm.runtime import ops

WORK = Work(bytes=600, weights=1000, output_weights=512)
LIMITS = {"read_bytes_s": 60_000.0, "int8_ops_s": 4_004_000.0}
REPORT = {
    "date": "2026-01-02", "nbllm": "1.2", "kernels": "avx2", "threads": 2,
    "machine": {"processors": 4, "processor": "P", "load": 0.36},
    "model": {"file": "m.gguf", "bytes": 9, "work": {"bytes": 96_000_000, "weights": 1, "output_weights": 2}},
    "figures": dict.fromkeys(SHOWN) | {"load_s": 0.123, "prefill_512_tok_s": 1234.5, "private_bytes": 345_600_000},
    "missing": {name: "because" for name in SHOWN},
    "limits": {"read_bytes_s": 36.04e9, "int8_ops_s": 512e9},
    "fractions": {"prefill_512_tok_s": 0.432},
}  # fmt: skip


def test_json_has_every_figure_and_a_fraction_of_each_limit(tmp_path, capsys):
    path = write_llama(tmp_path / "tiny.gguf", context=4096)
    assert cli.main(["bench", str(path), "--json", "--threads", "1"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert set(report["figures"]) == set(SHOWN)
    assert {name for name, value in report["figures"].items() if value is None} == set(report["missing"])
    # Whether a system drops a file from its memory is its own affair.
    assert set(report["missing"]) <= {"load_cold_s", "first_token_cold_s"} | (
        set() if memory.of() else {"private_bytes", "mapped_bytes"}
    )
    assert all(value > 0 for value in report["figures"].values() if value is not None)
    assert (report["threads"], report["kernels"]) == (1, ops.variant().name)
    size = report["model"]["work"]
    assert set(report["fractions"]) == set(FIGURES)
    assert report["fractions"] == fractions(report["figures"], report["limits"], Work(**size))
    assert [line for line in err.splitlines() if line.startswith("nbllm: measuring")] == err.splitlines()
    assert all(f"nbllm: measuring {SHOWN[name][0]}" in err.splitlines() for name in FIGURES)


@pytest.mark.parametrize("figure", ["prefill_512_tok_s", "decode_4096_tok_s"])
def test_what_does_not_fit_in_the_context_is_missing_and_says_so(figure, tiny_model):
    with nbllm.load(tiny_model) as model, pytest.raises(Missing, match="the model's context is 256 tokens"):
        FIGURES[figure](Bench(model))


@pytest.mark.parametrize(("options", "match"), [
    (["nonsense.gguf"], "nonsense.gguf"),
    (["MODEL", "--threads", "0"], "threads=0 is out of range"),
    (["DAMAGED"], "damaged.gguf"),
])  # fmt: skip
def test_a_mistake_is_one_line(options, match, tiny_model, tmp_path, capsys):
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(tiny_model.read_bytes()[:5000])
    paths = {"MODEL": str(tiny_model), "DAMAGED": str(damaged)}
    assert cli.main(["bench", *(paths.get(option, option) for option in options)]) == 1
    out, err = capsys.readouterr()
    *before, last = err.splitlines()
    assert out == "" and last.startswith("nbllm: ") and match in last
    assert all(line.startswith("nbllm: measuring") for line in before)


def test_fractions_of_given_figures():
    figures = {"prefill_512_tok_s": 500.0, "decode_tok_s": 50.0, "decode_4096_tok_s": None, "load_s": 1.0}
    # 500 tokens x 2 x (1000 + 512 / 512) operations; 50 tokens x 600 bytes
    assert fractions(figures, LIMITS, WORK) == {"prefill_512_tok_s": 0.25, "decode_tok_s": 0.5}


@pytest.mark.parametrize("tied", [True, False])
def test_work_counts_what_a_token_is_multiplied_with(tied, tmp_path):
    path = write_llama(tmp_path / "m.gguf", block_type="Q4_0", embedding_type="Q8_0", tied=tied)
    with open_model(path) as gguf:
        vocab = gguf.tensors["token_embd.weight"].shape[0]
        # two layers: attention 64 x 64 twice and 32 x 64 twice, feed-forward three times 96 x 64
        layers = 2 * (2 * 64 * 64 + 2 * 32 * 64 + 3 * 96 * 64)
        assert work(gguf) == Work(layers // 32 * 18 + vocab * 64 // 32 * 34, layers, vocab * 64)


def test_text_tells_each_figure_its_part_of_the_limit_and_why_one_is_missing():
    lines = text(REPORT).splitlines()
    assert lines[0] == "m.gguf, 96 MB of weights a token"
    assert lines[1] == "nbllm 1.2, kernels avx2, 2 threads of 4 processors, P, 2026-01-02, load before 0.4"
    rows = {line[:50].rstrip(): line[50:] for line in lines[3:]}
    assert len(rows) == len(lines) - 3 == len(SHOWN) + 2
    assert rows["limit: reading of memory"] == "36.0 GB/s"
    assert rows["limit: 8-bit products and sums"] == "512 Gop/s"
    assert rows["load"] == "0.12 s"
    assert rows["prefill of 512 tokens"] == "1,234 tokens/s, 43% of the limit"
    assert rows["memory, its own"] == "346 MB"
    assert rows["decode"] == "not measured: because"


def test_limits_are_positive_and_do_not_follow_the_variant_asked_for(monkeypatch):
    monkeypatch.setenv("NBLLM_ISA", "portable")
    assert machine.best_kernels() == next(
        variant.name
        for variant in ops.VARIANTS
        if variant.name in ops.built() and all(ops.cpu_features()[need] for need in variant.needs)
    )
    limits = machine.limits(1)
    assert set(limits) == set(LIMITS) and min(limits.values()) > 0


@pytest.mark.skipif(memory.of() is None, reason="only Linux tells what a process has in memory")
def test_memory_tells_what_is_private_and_what_is_of_files(tmp_path):
    import mmap

    path = tmp_path / "file"
    path.write_bytes(bytes(1 << 26))
    before = memory.of()
    own = bytearray(b"x") * (1 << 26)  # so large that it never comes from memory which was freed before
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        assert sum(view[i] for i in range(0, len(view), 4096)) == 0
        now = memory.of()
    assert now.private - before.private == pytest.approx(len(own), rel=0.1)
    assert now.mapped - before.mapped == pytest.approx(1 << 26, rel=0.1)
