"""Opens damaged models one after the other, through to a step of the engine. Runs as a process of its own,
which may die.

Takes the numbers of cases from standard input and answers each with a line: its number and what came of it. Its time on
the processor and its memory are bounded, so what takes too much of either ends it, and whoever started it sees at
which case.
"""

import os
import signal
import sys
import tempfile
from pathlib import Path

from fuzz.damage import case
from fuzz.outcome import SECONDS, bound, model, outcome
from fuzz.seeds import names


def main():
    case(0)  # makes the seeds
    bound()
    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as folder:
        for line in sys.stdin:
            damaged = case(int(line))
            paths = [Path(folder) / name for name in names(damaged.seed)]
            for path, raw in zip(paths, damaged.parts, strict=True):
                path.unlink(missing_ok=True)
                path.write_bytes(raw)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # its signal ends the process
            told = outcome(model, paths[0])
            signal.setitimer(signal.ITIMER_PROF, 0)
            if damaged.wrong and told.startswith("ran"):
                told = "wrong: accepted, though " + damaged.story[0]
            print(int(line), told, flush=True)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
