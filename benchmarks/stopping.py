"""How long an interrupt takes to end a cell, in a real Jupyter kernel, in each state that one can be in:

    python stopping.py [--trials 200] [--model FILE] [--words 5000] [--states decode,prompt,...]

A trial starts a cell, waits until it is in the state, interrupts it as the stop button does, and takes the time until
the cell's reply is here. Then a further cell must work. Printed are the median, the 99th percentile and the longest.
"""

import argparse
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from file_server import serve  # noqa: E402
from kernel.kernels import Kernel  # noqa: E402
from kernel.test_interrupt import LONG, SLOW_LOAD, SLOW_PACKING  # noqa: E402

NEXT = "%%chat --new --max-tokens 2\nhello"


def decode(kernel, trial, words):
    return kernel.start(LONG.replace("%%chat", "%%chat --new")).until(lambda cell: cell.states.count("writing") > 2)


def prompt(kernel, trial, words):
    cell = kernel.start(f"%%chat --new --max-tokens 2\n{trial} " + "sea " * words)
    return cell.until(lambda cell: any("%" in update["data"]["text/plain"] for update in cell.updates))


def loading(kernel, trial, words):
    return kernel.start("%chat model {other}").until(lambda cell: "loading" in str(cell.updates))


def packing(kernel, trial, words):
    return kernel.start("%chat model {other}").until(lambda cell: "laying out" in str(cell.updates))


def download(kernel, trial, words):
    return kernel.start(f"%chat model {{url}}/m{trial}.gguf").until(lambda cell: "downloading" in str(cell.updates))


STATES = {"decode": (decode, ""), "prompt": (prompt, ""), "download": (download, ""), "loading": (loading, SLOW_LOAD),
          "packing": (packing, SLOW_PACKING)}  # fmt: skip


def measure(state, model, trials, words, url):
    """Seconds of each trial."""
    begin, setup = STATES[state]
    seconds = []
    with Kernel() as kernel, tempfile.TemporaryDirectory() as folder:
        kernel.run(
            f"import os\nos.environ['NBLLM_MODELS'] = {folder!r}\n%load_ext nbllm\n%config NbLLM.model = {str(model)!r}"
        )
        kernel.run("%config NbLLM.seed = 1")  # else some replies end before they can be interrupted
        kernel.run(NEXT)
        kernel.run(setup.format(folder=folder) if "{folder" in setup else setup)
        other = Path(folder) / "other.gguf"  # the same model by another name, so that it is loaded
        other.symlink_to(model)
        start = kernel.start
        kernel.start = lambda code: start(code.replace("{other}", str(other)).replace("{url}", url))
        for trial in range(trials):
            cell = begin(kernel, trial, words)
            since = kernel.interrupt()
            cell.finish()
            if cell.reply["status"] != "error" or cell.reply["ename"] != "Stopped":
                raise SystemExit(f"{state}, trial {trial}: the cell ended with {cell.reply}")
            seconds.append(cell.ended - since)
            if (after := kernel.run(NEXT if trial % 10 == 0 else "1 + 1").reply)["status"] != "ok":
                raise SystemExit(f"{state}, trial {trial}: the next cell ended with {after}")
    return np.array(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--model", type=Path, help="by default the default model, which is fetched if need be")
    parser.add_argument("--words", type=int, default=5000, help="of the long prompt; each is about a token")
    parser.add_argument("--states", default=",".join(STATES))
    given = parser.parse_args()
    if given.model is None:
        from nbllm.catalogue.pull import pull

        given.model = pull()
    print(
        f"{given.model.name}, {given.trials} trials\n\n| state | median, ms | 99th percentile, ms | longest, ms |\n"
        "|---|--:|--:|--:|"
    )
    with serve(b"GGUF" + bytes(1 << 20)) as server:
        server.pause = threading.Event()
        for state in given.states.split(","):
            times = 1000 * measure(state, given.model.resolve(), given.trials, given.words, server.url)
            print(
                f"| {state} | {np.median(times):.0f} | {np.percentile(times, 99):.0f} | {times.max():.0f} |", flush=True
            )
        server.pause.set()


if __name__ == "__main__":
    main()
