"""Measures nbllm and the other engines that are installed, in turn; writes results.md, results.svg and results.json.

    python benchmarks/run.py [--models MODEL ...] [--rounds N] [--threads N] [--peer-python PATH]

In every round each engine loads the file in a process of its own and is measured, one after the other; the median over
the rounds counts. An engine that is not installed, or does not run a file, is named as such.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

from peers import PEERS
from plot import plot
from table import COMPARED, medians, table

from nbllm.bench import machine
from nbllm.bench.report import Work, bench, fractions
from nbllm.bench.spawn import measure
from nbllm.catalogue import find
from nbllm.errors import NbLLMError
from nbllm.runtime import ops

HERE = Path(__file__).resolve().parent
HOUR = 3600


def ours(path, threads):
    return measure(path, threads, COMPARED).values


def theirs(name, python, path, threads):
    """What `peers.py` tells of an engine."""
    command = [python, HERE / "peers.py", name, path, "--threads", str(threads)]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=HOUR)
    except FileNotFoundError:
        return {"absent": f"there is no {python}"}
    except subprocess.TimeoutExpired:
        return {"refused": "it took more than an hour"}
    if ran.returncode:
        return {"refused": f"it ended with status {ran.returncode}: {(ran.stderr.strip().splitlines() or [''])[-1]}"}
    return json.loads(ran.stdout.splitlines()[-1])


def compare(path, threads, rounds, python):
    """Speeds, limits and versions; speeds are engine -> {figure: [a value for each round]}, or why it has none."""
    speeds = {name: {figure: [] for figure in COMPARED} for name in ("nbllm", *PEERS)}
    limits, versions = {}, set()
    for n in range(rounds):
        for name, speed in speeds.items():
            if "absent" in speed or "refused" in speed:
                continue
            say(f"{path.name}, round {n + 1} of {rounds}: {name}")
            told = ours(path, threads) if name == "nbllm" else theirs(name, python, path, threads)
            if "absent" in told or "refused" in told:
                speeds[name] = told
                continue
            versions |= {told["version"]} if "version" in told else set()
            for figure in COMPARED:
                speed[figure].append(told[figure])
                say(f"    {COMPARED[figure]}: {told[figure]:,.1f} tokens/s")
        limits = {name: max(value, limits.get(name, 0)) for name, value in machine.limits(threads).items()}
    return speeds, limits, versions


def measured(path, threads, rounds, python):
    """The report of `nbllm bench`, with the speeds of all engines and what they and the limits were in those rounds."""
    report = bench(path, threads, lambda line: say(f"{path.name}: {line}"))
    speeds, limits, versions = compare(path, threads, rounds, python)
    report["figures"] |= medians(speeds["nbllm"])
    report["limits"] = {name: max(value, limits[name]) for name, value in report["limits"].items()}
    report["fractions"] = fractions(report["figures"], report["limits"], Work(**report["model"]["work"]))
    return report | {"speeds": speeds, "versions": sorted(versions)}


def say(line):
    print(line, file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="*", default=[], metavar="MODEL", help="besides the default model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=ops.threads()[0])
    parser.add_argument("--peer-python", default=sys.executable, metavar="PATH", help="where the other engines are")
    parser.add_argument("--out", type=Path, default=HERE, metavar="FOLDER")
    options = parser.parse_args()
    try:
        paths = [find(name) for name in (None, *options.models)]
        models = [measured(path, options.threads, options.rounds, options.peer_python) for path in paths]
    except NbLLMError as error:
        sys.exit(str(error))
    results = {"rounds": options.rounds, "models": models}
    (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (options.out / "results.md").write_text(table(results), encoding="utf-8")
    (options.out / "results.svg").write_text(plot(results), encoding="utf-8")
    print(table(results))


if __name__ == "__main__":
    main()
