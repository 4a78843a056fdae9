"""How long an interrupt takes to end a cell, beside the other engines, each as a user would have it in a notebook:

    python stopping_peers.py [--trials 20] [--rounds 2] [--model FILE] [--peer-python PATH] [--engines ENGINE ...]

PATH is a Python with ipykernel in which the other engines are. A trial starts a cell in a real Jupyter kernel, interrupts
it as the stop button does, after a time drawn by chance of what the cell would take, and takes the time until the cell's
reply is here; then the time until the Jupyter kernel no longer computes; then a further question must be answered. In each
round each engine takes its turn with a new Jupyter kernel. A cell that has not ended after 60 seconds counts as such.
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
REST, IDLE = 0.25, 0.1  # a process rests that takes less than this part of a processor, over so many seconds
COUNT = "Count from one to one thousand, in words, one number a line."
THREADS = psutil.cpu_count(logical=False) or os.cpu_count()


@dataclass(frozen=True)
class Engine:
    """Cells: what is done once, what loads the model of {path}, and what writes a reply to {question}."""

    setup: str
    load: str
    ask: str
    package: str
    peer: bool = True


LLAMA = "Llama({path!r}, n_ctx=8192, n_threads={threads}, n_threads_batch={threads}, verbose=False{more})"
ASK_LLAMA = """
for part in model.create_chat_completion(
    [{{"role": "user", "content": {question!r}}}], max_tokens={tokens}, temperature=1.0, stream=True
):
    print(part["choices"][0]["delta"].get("content") or "", end="", flush=True)
"""
ASK_OPENVINO = """
model.generate({question!r}, max_new_tokens={tokens}, do_sample=True, temperature=1.0,
               streamer=lambda text: print(text, end="", flush=True))
"""
ASK_GPT4ALL = """
for text in model.generate({question!r}, max_tokens={tokens}, temp=1.0, n_batch=512, streaming=True):
    print(text, end="", flush=True)
"""


def llama(more=""):
    return Engine("from llama_cpp import Llama", LLAMA.replace("{more}", more), ASK_LLAMA, "llama-cpp-python")


ENGINES = {
    "nbllm": Engine(
        "%load_ext nbllm\nimport nbllm\n%config NbLLM.model = {path!r}\n%config NbLLM.seed = 1",
        "nbllm.load({path!r})", "%%chat --new -t 1 --max-tokens {tokens}\n{question}", "nbllm", peer=False,
    ),
    "llama-cpp-python": llama(),
    "llama-cpp-python, n_batch=64": llama(", n_batch=64"),
    "OpenVINO GenAI": Engine(
        "from openvino_genai import LLMPipeline", 'LLMPipeline({path!r}, "CPU")', ASK_OPENVINO, "openvino-genai"
    ),
    "GPT4All": Engine(
        "from gpt4all import GPT4All",
        "GPT4All({path!r}, n_ctx=8192, n_threads={threads}, device='cpu', allow_download=False)", ASK_GPT4ALL, "gpt4all",
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

    def __init__(self, engine, model, name):
        self._engine, self._model = engine, str(model)
        self._kernel = Kernel(name, NO_HISTORY)

    def __enter__(self):
        self._kernel.__enter__()
        self._process = psutil.Process(self._kernel.manager.provisioner.pid)
        self._run(self._code(self._engine.setup))
        if self._engine.peer:
            self._run("model = " + self._code(self._engine.load))
        return self

    def __exit__(self, *error):
        self._kernel.__exit__()

    def _code(self, code, **more):
        return code.format(path=self._model, threads=THREADS, **more)

    def _run(self, code):
        if (reply := self._kernel.run(code).reply)["status"] != "ok":
            raise SystemExit(f"{code[:80]!r} ended with {reply}")

    def cell(self, state, trial):
        if state == "loading":
            return "other = " + self._code(self._engine.load)
        question, tokens = questions(trial)[state]
        return self._code(self._engine.ask, question=question, tokens=tokens)

    def takes(self, state):
        """Seconds that a cell takes that nobody interrupts."""
        begun = time.monotonic()
        self._run(self.cell(state, "first"))
        return time.monotonic() - begun

    def trial(self, state, trial, after):
        """(what came of it, seconds until the cell ended, seconds until nothing was computed any more)."""
        cell = self._kernel.start(self.cell(state, trial))
        if state == "decode":
            cell.until(lambda cell: cell.of("stream") or "writing" in str(cell.updates))
        else:
            cell.until(lambda cell: cell.of("execute_input"))
        time.sleep(after)
        since = self._kernel.interrupt()
        try:
            cell.until(lambda cell: _idle(cell) or time.monotonic() > since + PATIENCE)
            if not _idle(cell):
                return "did not end", PATIENCE, PATIENCE
            seconds = cell.finish().ended - since
        except AssertionError:  # no message
            return ("did not end" if self._kernel.manager.is_alive() else "ended the Jupyter kernel"), PATIENCE, PATIENCE
        if cell.reply["status"] == "ok":
            return "ended before", seconds, seconds
        return cell.reply["ename"], seconds, max(seconds, self._rested() - since)

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
        question = self._code(self._engine.ask, question="hello", tokens=2)
        try:
            return self._kernel.run(question).reply["status"]
        except AssertionError:
            return "ended the Jupyter kernel"


def _idle(cell):
    states = cell.of("status")
    return states and states[-1]["execution_state"] == "idle"


STATES = ("decode", "prompt", "loading")
STOPPED = ("KeyboardInterrupt", "Stopped")


def measure(engine, model, name, states, trials, draw, found):
    """Adds to `found` what came of the trials: state -> list of (what, seconds, seconds)."""
    for state in states:
        done = 0
        while done < trials:
            with Notebook(engine, model, name) as notebook:
                usual = 0.5 if state == "decode" else notebook.takes(state)
                while done < trials:
                    told = notebook.trial(state, f"{draw.random()}", draw.uniform(0, 0.9) * usual)
                    if told[0] == "ended before" and state != "decode":
                        continue
                    done += 1
                    found[state].append(told)
                    answered = notebook.answers() if told[0] in STOPPED else "not asked"
                    if answered != "ok":
                        found[state, "next"].append(answered)
                        break  # this Jupyter kernel is of no use any more


def row(name, state, told, following):
    """Markdown: medians over the trials, and how many were stopped in what way."""
    seconds = np.array([seconds for _, seconds, _ in told])
    on = np.array([rest for _, _, rest in told])
    ways = ", ".join(f"{count} {what}" for what, count in Counter(what for what, _, _ in told).items())
    asked = "; then " + ", ".join(f"{n} {what}" for what, n in Counter(following).items()) if following else ""
    return (f"| {name} | {state} | {len(told)} | {1000 * np.median(seconds):,.0f} | {1000 * np.percentile(seconds, 99):,.0f} "
            f"| {1000 * seconds.max():,.0f} | {1000 * np.median(on):,.0f} | {1000 * on.max():,.0f} | {ways}{asked} |")  # fmt: skip


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
                engine = ENGINES[name]
                path = old if name == "GPT4All" else model
                kernel = "peers" if engine.peer else "python3"
                measure(engine, path, kernel, given.states, given.trials // given.rounds, draw, found[name])
                for state in given.states:
                    print(row(name, state, found[name][state], found[name][state, "next"]), file=sys.stderr, flush=True)
    print("| engine | state | trials | median, ms | 99th percentile, ms | longest, ms | computes on, median, ms | longest, ms "
          "| cells ended with |\n|---|---|--:|--:|--:|--:|--:|--:|---|")  # fmt: skip
    for name, states in found.items():
        for state in given.states:
            print(row(name, state, states[state], states[state, "next"]))


if __name__ == "__main__":
    main()
