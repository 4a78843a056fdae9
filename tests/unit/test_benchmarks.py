"""The benchmarks' own parts: the results as a table and as a picture, and the files of real shapes."""

import importlib
import json
import os
import subprocess
import sys
from collections import Counter
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


FATES = """
import os, signal, sys, time
sys.path.insert(0, {benchmarks!r})
import openers

def burn(lib, path, between):
    while True: pass

def grow(lib, path, between):
    kept = bytearray(1 << 28)
    kept[:] = bytes(kept) + b"."
    time.sleep(60)

def cut(lib, path, between):
    before = os.path.getsize(path)
    between()
    return f"{{before}} {{os.path.getsize(path)}}"

openers.SECONDS, openers.MEMORY = 1, 1 << 28
openers.ENGINES = {{name: ("math", "numpy", how) for name, how in {{
    "runs": lambda lib, path, between: lib.sqrt(4), "refuses": lambda lib, path, between: lib.sqrt(-1),
    "cut": cut, "aborts": lambda *given: os.abort(), "burns": burn, "grows": grow,
    "segfaults": lambda *given: os.kill(os.getpid(), signal.SIGSEGV), "ends": lambda *given: os._exit(3),
}}.items()}}
openers.main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it is told there how a process ended and what memory it has")
@pytest.mark.parametrize("fate, told", {
    "runs": ["ran", "2.0"], "refuses": ["refused", "ValueError: "], "cut": ["ran", "100 50"],
    "aborts": ["signal", "SIGABRT"], "segfaults": ["signal", "SIGSEGV"], "ends": ["ended", "status 3"],
    "burns": ["time", ""], "grows": ["memory", ""],
}.items())  # fmt: skip
def test_whatever_an_engine_does_with_a_file_is_told_and_the_next_file_is_opened(tmp_path, fate, told):
    (tmp_path / "m.gguf").write_bytes(bytes(100))
    asked = json.dumps({"path": str(tmp_path / "m.gguf"), "cut": fate == "cut"}) + "\n"
    command = [sys.executable, "-c", FATES.format(benchmarks=str(BENCHMARKS)), fate]
    ran = subprocess.run(command, input=asked * (2 if told[0] == "signal" else 1), capture_output=True, text=True)
    about, *answers = [json.loads(line) for line in ran.stdout.splitlines()]
    assert set(about) == {"version"} and len(answers) == asked.count("\n") * (2 if told[0] == "signal" else 1)
    for what, more in answers:
        assert [what, more[: len(told[1])]] == told


def test_models_to_damage_are_run_whole_and_none_is_taken_for_one_of_the_fuzzer(part, tmp_path):
    from fuzz import seeds

    damaged = part("damaged")
    assert not damaged.seeds().keys() & seeds.seeds().keys()
    for [raw] in damaged.seeds().values():
        (tmp_path / "m.gguf").write_bytes(raw)
        with load(tmp_path / "m.gguf") as model:
            assert np.isfinite(model.logits([0, 1, 2, 3])).all()
    assert {damaged.case(number).seed for number in range(100)} == set(damaged.seeds())
    assert all(damaged.case(number) == damaged.case(number) for number in range(20))


@pytest.mark.skipif(sys.platform != "linux", reason="it is told there how a process ended and what memory it has")
def test_damaged_files_are_counted_and_engines_that_are_not_there_are_named(tiny_model):
    command = [sys.executable, BENCHMARKS / "damaged.py", "--cases", "40", "--model", tiny_model]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(BENCHMARKS), *filter(None, sys.path)])}
    ran = subprocess.run([*command, "--engines", "nbllm", "GPT4All"], capture_output=True, text=True, env=environment)
    assert "GPT4All is not installed" in ran.stderr
    rows = dict(line.strip("| ").split(" | ") for line in ran.stdout.splitlines() if "---" not in line)
    counts = {title: int(count) for title, count in rows.items() if count.isdecimal()}
    assert counts["were tried"] == counts["were refused by an exception"] + counts["ran"] == 40
    assert counts["ended the process by a signal"] == counts["contradict themselves and ran"] == 0
    assert counts["were whole, and cut to half once loaded"] == counts["- ran"] == 6


def test_what_contradicts_itself_and_runs_is_counted_and_told(part, capsys):
    damaged = part("damaged")

    class Careless:
        title, counts, open = "careless", Counter(), staticmethod(lambda raw: ["ran", "words"])

    wrong = [number for number in range(50) if damaged.case(number).wrong]
    for number in range(50):
        damaged.count(Careless, number)
    assert Careless.counts == {"ran": 50, damaged.CONTRADICT: len(wrong)} and wrong
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == [f"case {n}" for n in wrong]


def test_old_engines_are_given_a_model_with_only_a_name_changed(part, tmp_path):
    text = b"\6" + bytes(7)
    (tmp_path / "m.gguf").write_bytes(b"a" + text + b"smollm" + b"smollm")
    old = part("stopping_peers").known_to_old_engines(tmp_path / "m.gguf", tmp_path / "old.gguf")
    assert old.read_bytes() == b"a" + text + b"refact" + b"smollm"


def test_a_row_of_stopping_has_times_and_how_cells_ended(part):
    told = [("KeyboardInterrupt", 0.01, 0.5), ("KeyboardInterrupt", 0.03, 1.5), ("did not end", 60, 60)]
    found = {"decode": told, ("decode", "next"): ["not asked"], ("decode", "takes"): [0.5]}
    row = part("stopping_peers").row("an engine", "decode", found)
    assert row == ("| an engine | decode | 0.5 | 3 | 30 | 58,801 | 60,000 | 1,500 | 60,000 "
                   "| 2 KeyboardInterrupt, 1 did not end; then 1 not asked |")  # fmt: skip


def test_the_cells_of_other_engines_are_python_whatever_the_question(part):
    stopping = part("stopping_peers")
    for name, engine in stopping.ENGINES.items():
        load = engine.load.format(path="m'{}.gguf", threads=2)
        ask = engine.ask.format(question="it's {hot}\n", tokens=5)
        if engine.peer:
            compile("\n".join([engine.setup, load, ask]), name, "exec")
        assert "m'{}.gguf" in load and "{hot}" in ask and "5" in ask
