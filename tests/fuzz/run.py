"""Gives damaged model files to a process of its own and reports what became of it:
`python run.py CASES [FIRST [FOLDER]]`.

A process that dies is a finding: the file that it died of is saved, and another process goes on with the next one.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1]
if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))

from fuzz.damage import case  # noqa: E402
from fuzz.seeds import names  # noqa: E402

SILENCE = 120  # seconds without an answer, after which a process is ended


def run(numbers, folder, report=lambda done: None):
    """Try the cases of these numbers.

    Parameters
    ----------
    numbers : iterable of int
    folder : Path
        Where the files of findings are saved.
    report : callable
        Called with the number of cases done so far, now and then.

    Returns
    -------
    (Counter, list of str)
        How many ran and how many were refused; and what is wrong, a line each.
    """
    counts, findings, child = Counter(), [], None
    try:
        for done, number in enumerate(numbers):
            if child is None:
                child = _start(folder)
            told = _ask(child, number)
            if told is None:
                told = f"wrong: the process ended with {child.wait()}"
                child = None
            counts[told.split(":")[0]] += 1
            if told.startswith("wrong"):
                findings.append(f"case {number}: {told}; {_save(number, folder)}")
            if done % 1000 == 0:
                report(done)
    except KeyboardInterrupt:  # what was found until then is reported
        pass
    finally:
        if child is not None:
            child.stdin.close()
            child.wait()
            child.stdout.close()
    return counts, findings


def _start(folder):
    path = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, str(Path(__file__).with_name("child.py")), str(folder)]
    return subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True)


def _ask(child, number):
    """What the process says of a case; None if it ends."""
    timer = threading.Timer(SILENCE, child.kill)
    timer.start()
    try:
        child.stdin.write(f"{number}\n")
        child.stdin.flush()
        line = child.stdout.readline()
    except BrokenPipeError:
        line = ""
    finally:
        timer.cancel()
    if line.endswith("\n"):
        return line.partition(" ")[2].strip()
    child.stdout.close()
    return None


def _save(number, folder):
    damaged = case(number)
    place = folder / f"case-{number}"
    place.mkdir(exist_ok=True)
    for name, raw in zip(names(damaged.seed), damaged.parts, strict=True):
        (place / name).write_bytes(raw)
    return f"{damaged.seed}, {', '.join(damaged.story)}; saved in {place}"


def main(cases, first=0, folder=None):
    folder = Path(folder or tempfile.mkdtemp(prefix="fuzz-"))
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()

    def report(done):
        print(f"{done:,} of {cases:,} files, {time.monotonic() - begun:.0f} s", flush=True)

    counts, findings = run(range(first, first + cases), folder, report)
    print(*findings, sep="\n")
    print(
        f"{counts.total():,} damaged files: " + ", ".join(f"{count:,} {what}" for what, count in sorted(counts.items()))
    )
    return bool(findings)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:3]]
    sys.exit(main(*numbers, *([0] if len(numbers) < 2 else []), *sys.argv[3:4]))
