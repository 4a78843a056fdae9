"""Searches for inputs that reach code which none has reached before, and so for one that something is wrong with:
`python guided.py [--target NAME] [--hours N] FOLDER`; or tells what comes of an input that was saved:
`python guided.py --target NAME --again FILE`.

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
LONGEST = 5 << 20  # bytes of an input
SILENCE = 120  # seconds for one input, after which libFuzzer ends the process
TOLD = re.compile(r"#(\d+)\s.*cov: (\d+) .*corp: (\d+)/")  # as libFuzzer says how far it is
WRONG, BRANCHES = "finding: ", "branches: "  # how the process begins a line of its own
PULSE = 60  # seconds between two lines of progress
LAST = 15  # lines that are shown of a process that died


def search(name, seconds, folder):
    """Search for so many seconds, and tell what came of it; whether something is wrong."""
    place, begun = folder / name, time.monotonic()
    findings, inputs, done, reached, branches, kept, shown = [], 0, 0, 0, 0, 0, begun

    def tell(*more):
        print(f"{name}: {inputs + done:,} inputs in {time.monotonic() - begun:.0f} s, {kept:,} of them kept, which "
              f"reach {reached:,} of {branches:,} branches", *more, flush=True)  # fmt: skip

    def find(what, *lines):
        findings.append(what)
        print(what, *lines, sep="\n", flush=True)

    (place / "inputs").mkdir(parents=True, exist_ok=True)
    scratch = tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True)
    try:
        while (left := begun + seconds - time.monotonic()) >= 1:
            process, lines = _start(name, left, place, scratch.name), []
            for line in process.stderr:
                lines = [*lines[-LAST:], line.rstrip()]
                if told := TOLD.search(line):
                    done, cover, kept = map(int, told.groups())
                    reached = max(reached, cover)
                elif line.startswith(BRANCHES):
                    branches = int(line.removeprefix(BRANCHES))
                elif line.startswith(WRONG):
                    find(line.removeprefix(WRONG).strip())
                if time.monotonic() - shown > PULSE:
                    shown = time.monotonic()
                    tell()
            if process.wait():
                find(f"the process ended with {process.returncode}; what it had is saved in {place}", *lines)
            if not done:  # the next one would do no better
                break
            inputs, done = inputs + done, 0
    except KeyboardInterrupt:  # the process gets it, too; what was found until then is reported
        process.wait()
    scratch.cleanup()
    tell(f"\n{name}: {len(findings):,} findings")
    return bool(findings)


def _start(name, seconds, place, scratch):
    path = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": path, "TMPDIR": scratch, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, __file__, "--target", name, "--hours", str(seconds / 3600), "--inside", str(place)]
    return subprocess.Popen(program, stderr=subprocess.PIPE, env=environment, text=True)


def inside(name, seconds, place):
    """What the process does; where `place` is a file, it only tells what comes of that one."""
    import atheris

    with atheris.instrument_imports(include=COVERED[name]):
        from fuzz.outcome import SECONDS, bound, outcome
        from fuzz.targets import TARGETS
    print(f"{BRANCHES}{atheris._reserve_counter()}", file=sys.stderr)
    target, seen = TARGETS[name], set()
    folder = Path(tempfile.mkdtemp())

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

    if place.is_file():
        bound()
        return print(outcome(target.use, folder, place.read_bytes()))
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
    parser.add_argument("--again", "--inside", action="store_true", help="tell what comes of one file")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    if given.again:
        sys.exit(inside(given.target[0], 3600 * given.hours, given.folder))
    sys.exit(any([search(name, 3600 * given.hours, given.folder) for name in given.target or COVERED]))
