"""How long an interrupt takes to end a cell, beside the other engines, each as a user would have it in a notebook:

    python stopping_peers.py [--trials 20] [--rounds 2] [--model FILE] [--peer-python PATH] [--engines ENGINE ...]

PATH is a Python with ipykernel in which the other engines are. A trial starts a cell in a real Jupyter kernel,
interrupts it as the stop button does, after a time drawn by chance of what the cell would take, and takes the time
until the cell's reply is here; then the time until the Jupyter kernel no longer computes; then a further question must
be answered. In each round each engine takes its turn with a new Jupyter kernel. A cell that has not ended after 60
seconds counts as such. Knows how each engine is called in a cell, and nothing of how it stops.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from kernel.kernels import Kernel  # noqa: E402
from stopping import NO_HISTORY, WORDS  # noqa: E402

from nbllm.catalogue import find  # noqa: E402

PATIENCE = 60  # seconds for a cell to end, and for a Jupyter kernel to come to rest
LONGEST = 600  # seconds for a cell that nobody interrupts
REST, IDLE = 0.25, 0.1  # a process rests that takes less than this part of a processor, over so many seconds
COUNT = "Count from one to one thousand, in words, one number a line."
THREADS = psutil.cpu_count(logical=False) or os.cpu_count()


@dataclass(frozen=True)
class Engine:
    """Cells: what is done once, what loads the model of {path}, and what writes a reply to {question}."""

    setup: str
    load: str
    ask: str
    peer: bool = True


LLAMA = "model = Llama({path!r}, n_ctx=8192, n_threads={threads}, n_threads_batch={threads}, verbose=False{more})"
ASK_LLAMA = """
for part in model.create_chat_completion(
    [{{"role": "user", "content": {question!r}}}], max_tokens={tokens}, temperature=1.0, stream=True
):
    print(part["choices"][0]["delta"].get("content") or "", end="", flush=True)
"""
ASK_OPENVINO = """
model.generate({question!r}, max_new_tokens={tokens}, do_sample=True, temperature=1.0, ignore_eos=True,
               streamer={streamer})
"""
# it calls back from a thread of its own while the main one waits, deaf to interrupts; so this is turned round
SETUP_CAREFUL_OPENVINO = """
import threading
from openvino_genai import LLMPipeline, StreamingStatus
def show(text):
    print(text, end="", flush=True)
    return StreamingStatus.STOP if interrupted else StreamingStatus.RUNNING
"""
ASK_CAREFUL_OPENVINO = """
interrupted = []
options = dict(max_new_tokens={tokens}, do_sample=True, temperature=1.0, ignore_eos=True, streamer=show)
thread = threading.Thread(target=model.generate, args=({question!r},), kwargs=options)
thread.start()
try:
    thread.join()
except KeyboardInterrupt:
    interrupted.append(True)
    thread.join()
    raise
"""
ASK_GPT4ALL = """
for text in model.generate({question!r}, max_tokens={tokens}, temp=1.0, n_batch=512, streaming=True):
    print(text, end="", flush=True)
"""


def openvino(setup, ask):
    return Engine(setup, 'model = LLMPipeline({path!r}, "CPU")', ask)


def llama(more=""):
    return Engine("from llama_cpp import Llama", LLAMA.replace("{more}", more), ASK_LLAMA)


ENGINES = {
    "nbllm": Engine(
        "%load_ext nbllm\n%config NbLLM.seed = 1", "%chat model {path}",
        "%%chat --new -t 1 --max-tokens {tokens}\n{question}", peer=False,
    ),
    "llama-cpp-python": llama(),
    "llama-cpp-python, n_batch=64": llama(", n_batch=64"),
    "OpenVINO GenAI": openvino(
        "from openvino_genai import LLMPipeline",
        ASK_OPENVINO.replace("{streamer}", 'lambda text: print(text, end="", flush=True)'),
    ),
    "OpenVINO GenAI, careful": openvino(SETUP_CAREFUL_OPENVINO, ASK_CAREFUL_OPENVINO),
    "GPT4All": Engine(
        "from gpt4all import GPT4All",
        "model = GPT4All({path!r}, n_ctx=8192, n_threads={threads}, device='cpu', allow_download=False)", ASK_GPT4ALL,
    ),
}  # fmt: skip


def questions(trial):
    """State to the question and the tokens of its reply; no prompt begins as another does, so that it is all read."""
    return {"decode": (COUNT, 2000), "prompt": (f"{trial} " + "sea " * WORDS, 2)}


def known_to_old_engines(model, path):
    """A copy of the default model with another name for the way its text is cut, that of one that cuts it the same way:
    GPT4All does not know the newer one."""
    data = model.read_bytes()
    path.write_bytes(data.replace(b"\6\0\0\0\0\0\0\0smollm", b"\6\0\0\0\0\0\0\0refact", 1))
    return path


class Notebook:
    """A Jupyter kernel with an engine in it. A context manager."""

    def __init__(self, engine, model, folder):
        self._engine, self._model, self._folder, self._links = engine, model, Path(folder), 0
        self._kernel = Kernel("peers" if engine.peer else "python3", NO_HISTORY)

    def __enter__(self):
        self._kernel.__enter__()
        self._process = psutil.Process(self._kernel.manager.provisioner.pid)
        self._run(self._engine.setup)
        self._run(self._load())
        return self

    def __exit__(self, *error):
        self._kernel.__exit__()

    def _load(self):
        """By a new name, since what has been loaded by that name may be kept."""
        self._links += 1
        link = self._folder / f"{self._links}.gguf"
        link.symlink_to(self._model)
        return self._engine.load.format(path=str(link), threads=THREADS)

    def _run(self, code):
        cell = self._kernel.start(code)
        if self._ended(cell, time.monotonic() + LONGEST) and cell.reply["status"] == "ok":
            return
        raise SystemExit(f"{code[:80]!r} ended with {cell.reply}")

    def _ended(self, cell, until):
        """Whether a cell has ended until then, or some time later if nothing comes of it."""
        while not _idle(cell) and time.monotonic() < until:
            try:
                cell.until(lambda cell: _idle(cell) or time.monotonic() > until)
            except AssertionError:  # no message for some time
                if not self._kernel.manager.is_alive():
                    return False
        if _idle(cell):
            try:
                cell.finish()
            except AssertionError:  # the reply is lost
                return False
        return cell.reply is not None

    def cell(self, state, trial):
        if state == "loading":
            return self._load()
        question, tokens = questions(trial)[state]
        return self._engine.ask.format(question=question, tokens=tokens)

    def takes(self, state):
        """Seconds that a cell takes that nobody interrupts."""
        begun = time.monotonic()
        self._run(self.cell(state, "first"))
        return time.monotonic() - begun

    def trial(self, state, trial, after):
        """(what came of it, seconds until the cell ended, seconds until nothing was computed any more)."""
        cell = self._kernel.start(self.cell(state, trial))
        try:
            if state == "decode":
                cell.until(lambda cell: cell.of("stream") or "writing" in str(cell.updates))
            else:
                cell.until(lambda cell: cell.of("execute_input"))
        except AssertionError:  # no message
            return ("did not begin" if self._kernel.manager.is_alive() else DEAD), PATIENCE, PATIENCE
        time.sleep(after)
        since = self._kernel.interrupt()
        if not self._ended(cell, since + PATIENCE):
            return self._silent(), PATIENCE, PATIENCE
        seconds = cell.ended - since
        return cell.reply.get("ename", ENDED), seconds, max(seconds, self._rested() - since)

    def _silent(self):
        """What is the matter with a cell without a reply."""
        if not self._kernel.manager.is_alive():
            return DEAD
        return LOST if self._ended(self._kernel.start("1"), time.monotonic() + 1) else "did not end"

    def _rested(self):
        """When the process came to rest."""
        begun = since = time.monotonic()
        used = sum(self._process.cpu_times()[:2])
        while (now := time.monotonic()) < begun + PATIENCE:
            time.sleep(0.02)
            now, total = time.monotonic(), sum(self._process.cpu_times()[:2])
            if now - since > REST:
                if total - used < IDLE * (now - since):
                    return since
                since, used = now, total
        return now

    def answers(self):
        """What came of a further question."""
        cell = self._kernel.start(self._engine.ask.format(question="hello", tokens=2))
        return cell.reply["status"] if self._ended(cell, time.monotonic() + PATIENCE) else self._silent()


def _idle(cell):
    states = cell.of("status")
    return states and states[-1]["execution_state"] == "idle"


STATES = ("decode", "prompt", "loading")
STOPPED = ("KeyboardInterrupt", "Stopped")
DEAD = "ended the Jupyter kernel"
ENDED = "ended without an error"  # as if nobody had interrupted it
LATE = 0.02  # seconds; a cell that ends so soon without an error had ended before, which is no trial
LOST = "reply lost"  # by ipykernel, which an interrupt between the end of a cell and its reply does; no trial


def measure(engine, model, states, trials, draw, found):
    """Adds to `found` what came of the trials: state -> list of (what, seconds, seconds), and how long it takes."""
    for state in states:
        done = 0
        while done < trials:
            with tempfile.TemporaryDirectory() as folder, Notebook(engine, model, folder) as notebook:
                if (state, "takes") not in found:
                    found[state, "takes"] = [0.5 if state == "decode" else notebook.takes(state)]
                while done < trials:
                    [usual] = found[state, "takes"]
                    told = notebook.trial(state, f"{draw.random()}", draw.uniform(0, 0.9) * usual)
                    print(state, f"{usual:.2f}", *told, file=sys.stderr, flush=True)
                    if told[0] == LOST:
                        break
                    if told[0] == ENDED and told[1] < LATE:
                        continue
                    done += 1
                    found[state].append(told)
                    answered = notebook.answers() if told[0] in (*STOPPED, ENDED) else "not asked"
                    if answered != "ok":
                        found[state, "next"].append(answered)
                        break  # this Jupyter kernel is of no use any more


TITLES = ("engine", "state", "takes, s", "trials", "ends after median, ms", "99th percentile, ms", "longest, ms",
          "at rest after median, ms", "longest, ms", "cells ended with")  # fmt: skip


def row(name, state, found):
    """Markdown: medians over the trials, and how many were stopped in what way."""
    told, following, [takes] = found[state], found[state, "next"], found[state, "takes"]
    ends = 1000 * np.array([seconds for _, seconds, _ in told])
    rests = 1000 * np.array([seconds for _, _, seconds in told])
    times = (np.median(ends), np.percentile(ends, 99), ends.max(), np.median(rests), rests.max())
    ways = ", ".join(f"{count} {what}" for what, count in Counter(what for what, _, _ in told).items())
    asked = "; then " + ", ".join(f"{n} {what}" for what, n in Counter(following).items()) if following else ""
    cells = [name, state, f"{takes:.1f}", str(len(told)), *(f"{ms:,.0f}" for ms in times), ways + asked]
    return f"| {' | '.join(cells)} |"


def write_kernelspec(folder, name, python):
    place = Path(folder) / "kernels" / name
    place.mkdir(parents=True)
    command = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (place / "kernel.json").write_text(json.dumps({"argv": command, "display_name": name, "language": "python"}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20, help="in all rounds together")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", help="by default the default model")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), metavar="ENGINE")
    parser.add_argument("--states", nargs="+", choices=STATES, default=STATES)
    parser.add_argument("--peer-python", default=sys.executable, metavar="PATH", help="where the other engines are")
    given = parser.parse_args()
    model, draw = Path(find(given.model)).resolve(), random.Random(0)
    found = {name: defaultdict(list) for name in given.engines}
    with tempfile.TemporaryDirectory() as folder:
        write_kernelspec(folder, "peers", given.peer_python)
        os.environ["JUPYTER_PATH"] = folder
        old = known_to_old_engines(model, Path(folder) / "model.gguf")
        for _ in range(given.rounds):
            for name in given.engines:
                path = old if name == "GPT4All" else model
                measure(ENGINES[name], path, given.states, given.trials // given.rounds, draw, found[name])
                for state in given.states:
                    print(row(name, state, found[name]), file=sys.stderr, flush=True)
    print(f"| {' | '.join(TITLES)} |\n|---|---|{'--:|' * (len(TITLES) - 3)}---|")
    for name, states in found.items():
        for state in given.states:
            print(row(name, state, states))


if __name__ == "__main__":
    main()
