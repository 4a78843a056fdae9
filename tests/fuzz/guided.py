"""Searches for inputs that reach code which none has reached before, and so for one that something is wrong with:
`python guided.py [--target NAME] [--hours N] FOLDER`.

Atheris (https://github.com/google/atheris), which is libFuzzer for Python, chooses among what was found, and mutates it
together with `targets.py`. It runs in a process of its own, which may die: that is a finding, too, and another one goes
on with all that was found until then. Knows nothing of what the inputs are.
"""

import argparse
import hashlib
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))

COVERED = {  # target -> the packages whose branches are counted
    "model": ["nbllm"], "conversation": ["nbllm"], "template": ["nbllm", "jinja2"], "packed": ["nbllm"],
}  # fmt: skip
LONGEST = 3 << 20  # bytes of an input
SILENCE = 120  # seconds for one input, after which libFuzzer ends the process
TOLD = re.compile(r"#(\d+)\s.*cov: (\d+) .*corp: (\d+)/")  # as libFuzzer says how far it is
WRONG, BRANCHES = "finding: ", "branches: "  # how the process begins a line of its own
LAST = 15  # lines that are shown of a process that died


def search(name, seconds, folder):
    """Search for so many seconds, and tell what came of it; whether something is wrong."""
    place, end = folder / name, time.monotonic() + seconds
    findings, inputs, reached, counters, kept = [], 0, 0, 0, 0
    (place / "inputs").mkdir(parents=True, exist_ok=True)
    try:
        while (left := end - time.monotonic()) >= 1:
            process, done, lines = _start(name, left, place), 0, []
            for line in process.stderr:
                lines = [*lines[-LAST:], line]
                if told := TOLD.search(line):
                    done, cover, kept = map(int, told.groups())
                    reached = max(reached, cover)
                elif line.startswith(BRANCHES):
                    counters = int(line.removeprefix(BRANCHES))
                elif line.startswith(WRONG):
                    findings.append(line.removeprefix(WRONG).strip())
                    print(findings[-1], flush=True)
            inputs += done
            if process.wait():
                findings.append(f"the process ended with {process.returncode}; what it had is saved in {place}")
                print(findings[-1], *lines, sep="\n", flush=True)
    except KeyboardInterrupt:  # what was found until then is reported
        inputs += done
    print(f"{name}: {inputs:,} inputs, {kept:,} of them kept, which reach {reached:,} of {counters:,} branches; "
          f"{len(findings):,} findings", flush=True)  # fmt: skip
    return bool(findings)


def _start(name, seconds, place):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])}
    program = [sys.executable, __file__, "--target", name, "--hours", str(seconds / 3600), "--inside", str(place)]
    return subprocess.Popen(program, stderr=subprocess.PIPE, env=environment | {"OMP_NUM_THREADS": "1"}, text=True)


def inside(name, seconds, place):
    """What the process does. Never returns."""
    import atheris

    with atheris.instrument_imports(include=COVERED[name]):
        from fuzz.outcome import SECONDS, bound, outcome
        from fuzz.targets import TARGETS
    print(f"{BRANCHES}{atheris._reserve_counter()}", file=sys.stderr)
    target, seen = TARGETS[name], set()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))

    def once(raw):
        begun = time.process_time()
        told = outcome(target.use, folder, raw)
        if (took := time.process_time() - begun) > SECONDS:
            told = f"wrong: it took {took:.1f} seconds"
        what = " ".join(told.split()[:5])
        if told.startswith("wrong") and what not in seen:
            seen.add(what)
            path = place / f"wrong-{hashlib.sha256(raw).hexdigest()[:12]}"
            path.write_bytes(raw)
            print(f"{WRONG}{told}; saved in {path}", file=sys.stderr, flush=True)

    def mutated(raw, longest, seed):
        draw = random.Random(seed)
        return target.damage(draw, raw, lambda part: atheris.Mutate(part, longest))[:longest]

    for raw in target.seeds(folder):
        (place / "inputs" / hashlib.sha256(raw).hexdigest()[:20]).write_bytes(raw)
    bound()
    options = {"artifact_prefix": f"{place}/", "max_total_time": round(seconds), "timeout": SILENCE, "max_len": LONGEST,
               "rss_limit_mb": 0, "len_control": 0, "seed": random.randrange(1, 2**31)}  # fmt: skip
    words = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([sys.argv[0], *words, str(place / "inputs")], once, custom_mutator=mutated)
    atheris.Fuzz()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--target", choices=COVERED, action="append", help="again for several; all by default")
    parser.add_argument("--hours", type=float, default=0.5, help="for each target")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    if given.inside:
        inside(given.target[0], 3600 * given.hours, given.folder)
    sys.exit(any([search(name, 3600 * given.hours, given.folder) for name in given.target or COVERED]))
