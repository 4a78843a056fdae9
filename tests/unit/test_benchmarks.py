"""The benchmarks' own parts: the results as a table and as a picture, and the files of real shapes."""

import importlib
import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from nbllm.bench.report import SHOWN
from nbllm.formats.blocks import BLOCK_TYPES, dequantize
from nbllm.formats.open import open_model
from nbllm.model import load

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

RESULTS = {
    "rounds": 3,
    "models": [{
        "date": "2026-01-02", "nbllm": "1.2", "kernels": "avx2", "threads": 2, "versions": ["p 3.4"],
        "machine": {
            "processor": "P <9>", "features": ["AVX", "AVX2"], "processors": 4, "memory_bytes": 8 << 30,
            "load": 0.25, "system": "Linux x",
        },
        "model": {"file": "m&m.gguf", "bytes": 9, "work": {"bytes": 500, "weights": 500, "output_weights": 0}},
        "limits": {"read_bytes_s": 50_000.0, "int8_ops_s": 1_000_000.0},  # 100 and 1,000 tokens per second
        "figures": dict.fromkeys(SHOWN) | {"load_s": 0.25, "decode_tok_s": 90.0},
        "missing": {name: "because" for name in SHOWN},
        "fractions": {"decode_tok_s": 0.9},
        "speeds": {
            "nbllm": {"prefill_512_tok_s": [300, 500, 400], "decode_tok_s": [90, 10, 95]},
            "slow": {"prefill_512_tok_s": [100, 100, 100], "decode_tok_s": [60, 60, 60]},
            "fast": {"prefill_512_tok_s": [200, 160, 150], "decode_tok_s": [50, 40, 45]},
            "picky": {"refused": "too new"},
            "away": {"absent": "No module named 'away'"},
        },
    }],
}  # fmt: skip


@pytest.fixture
def part(monkeypatch):
    """Import one of the benchmarks' files."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module


def test_table_has_medians_ratios_to_the_best_other_and_names_what_is_not_there(part):
    lines = part("table").table(RESULTS).splitlines()
    assert lines[2].startswith("P <9> (AVX, AVX2), 2 threads of 4 processors, 8 GiB of memory, Linux x;")
    assert lines[2].endswith("; 2026-01-02; load before 0.2.")
    assert "nbllm 1.2 with its kernels for avx2; p 3.4." in lines
    assert [line for line in lines if line.startswith("| m&m.gguf")] == [
        "| m&m.gguf | nbllm | 400 | 90.0 |",
        "| m&m.gguf | slow | 100 | 60.0 |",
        "| m&m.gguf | fast | 160 | 45.0 |",
        "| m&m.gguf | picky | does not run this file | |",
        "| m&m.gguf | **nbllm over the best other** | **2.50** | **1.50** |",
    ]
    assert "- picky with m&m.gguf: too new" in lines
    assert "- away: not installed (No module named 'away'); `make peers` installs the other engines." in lines
    assert "| load | 0.25 s |" in lines
    assert "| decode | 90.0 tokens/s, 90% of the limit |" in lines
    assert "| prefill of 512 tokens | because |" in lines
    assert "| this machine's limit: reading of memory | 0.0 GB/s |" in lines


def test_table_without_other_engines_has_no_ratio(part):
    alone = json.loads(json.dumps(RESULTS))
    alone["models"][0]["speeds"] = {"nbllm": RESULTS["models"][0]["speeds"]["nbllm"], "away": {"absent": "gone"}}
    expected = "| m&m.gguf | **nbllm over the best other** | no other engine | no other engine |"
    assert expected in part("table").table(alone)


def test_plot_draws_each_speed_as_its_part_of_the_limit(part):
    svg = ElementTree.fromstring(part("plot").plot(RESULTS))
    name = "{http://www.w3.org/2000/svg}"
    limits = [float(line.get("x1")) for line in svg.iter(f"{name}line")]
    parts = []
    for bar in svg.iter(f"{name}rect"):
        begin, width = float(bar.get("x")), float(bar.get("width"))
        limit = min(x for x in limits if x > begin)
        parts.append((bar.get("class"), round(width / (limit - begin), 2)))
    assert parts == [("ours", 0.4), ("ours", 0.9), ("other", 0.1), ("other", 0.6), ("other", 0.16), ("other", 0.45)]
    texts = [text.text for text in svg.iter(f"{name}text")]
    assert texts.count("does not run this file") == 2
    assert {"m&m", "1,000", "100", "400", "90"} <= set(texts) and "away" not in texts


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0", "F16"])
def test_a_file_of_a_shape_runs_and_keeps_activations_finite(kind, part, tmp_path, monkeypatch):
    make = part("make_gguf")
    monkeypatch.setitem(make.SHAPES, "small", (256, 512, 3, 4, 2, 1000))
    make.write(tmp_path / "m.gguf", "small", kind, output=kind)
    with load(tmp_path / "m.gguf") as model:
        logits = model.logits(list(range(20)))
        assert logits.shape == (20, 1000) and np.isfinite(logits).all() and 0.1 < logits.std() < 10


def test_a_file_of_a_shape_has_the_tensors_types_and_sizes_it_should(part, tmp_path, monkeypatch):
    make = part("make_gguf")
    monkeypatch.setitem(make.SHAPES, "small", (256, 512, 3, 4, 2, 1000))
    make.write(tmp_path / "m.gguf", "small", "Q4_K")
    with open_model(tmp_path / "m.gguf") as gguf:
        types = {name: tensor.block_type.name for name, tensor in gguf.tensors.items() if len(tensor.shape) == 2}
        assert len(types) == 2 + 3 * 7
        assert types.pop("output.weight") == "Q6_K" and set(types.values()) == {"Q4_K"}
        assert gguf.tensors["blk.2.attn_k.weight"].shape == (128, 256)
        assert gguf.tensors["blk.0.ffn_down.weight"].shape == (256, 512)


def test_random_blocks_of_every_type_have_weights_of_the_size_asked_for(part):
    make = part("make_gguf")
    for kind in make.TYPES.values():
        weights = dequantize(BLOCK_TYPES[kind.id], make.random_rows(np.random.default_rng(0), kind, 64, 1024))
        assert weights.shape == (64, 1024)
        assert abs(weights.std() * 1024**0.5 - 1) < 0.1 and abs(weights.mean() * 1024**0.5) < 0.15, kind.name


def test_a_given_reply_is_written_with_guesses_and_without(part, tiny_model):
    copying = part("copying")
    prompt, reply = list(range(3, 60)), [*range(3, 30), 7, *range(31, 60)]
    with load(tiny_model) as model:
        for guessing in (False, True):
            assert copying.seconds(model, prompt, reply, guessing) > 0
            assert model.engine.tokens[: len(prompt) + len(reply) - 1] == (prompt + reply)[:-1]
