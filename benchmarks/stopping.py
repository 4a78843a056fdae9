"""How long an interrupt takes to end a cell, in a real Jupyter kernel, in each state that one can be in:

    python stopping.py [--trials 200] [--model FILE] [--states decode,prompt,...]

A trial starts a cell, waits until it is in the state, interrupts it as the stop button does, and takes the time until
the cell's reply is here; the panel is stopped by its button, until the browser is told that the reply has ended. Then a
further question must be answered, and after all trials the Jupyter kernel must have as many threads and open files as
before. Printed are the median, the 99th percentile and the longest, and by how much the Jupyter kernel's own memory
grew between the first trial and the last.

"full" reads the end of the longest prompt that fits in the default model's context; "long" of one of 30,000 tokens,
whose first reading takes some minutes, and "schema" checks and compiles one of 94 kB, both with a copy of the model
that claims a context in which they fit.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from file_server import serve  # noqa: E402
from kernel import kernels  # noqa: E402
from kernel.kernels import Kernel  # noqa: E402
from kernel.test_interrupt import LONG, SLOW_LOAD, SLOW_PACKING  # noqa: E402
from tiny_gguf import string, value  # noqa: E402

kernels.PATIENCE = 1800  # seconds
WORDS = 5000  # of a long prompt; each is about a token
STRETCHED = 1 << 16  # tokens of context
NEXT = "%%chat --new --max-tokens 2\nhello"
NEXT_BEHIND = "%%chat --new --max-tokens 2\n{sea} hello"  # which leaves the long prompt in the cache
FIELDS = """
fields = {{f"field_{{n}}": {{"type": "string", "maxLength": 50 + n + {trial}}} for n in range(2000)}}
huge = {{"type": "object", "properties": fields}}
"""
TOLD = """
import nbllm.jupyter.schemas as s
real = s.schema
def schema(*arguments):
    print("checking", flush=True)
    return real(*arguments)
s.schema = schema
"""
NO_HISTORY = ["--HistoryManager.hist_file=:memory:"]  # whose file is open now and then
ENDED = """
import threading
for thread in threading.enumerate():
    if thread.name == "nbllm schema": thread.join()
"""
PANEL = "import nbllm\nshown = nbllm.panel()\nshown"
ASK_PANEL = """
handle = shown.send("Count from one to one thousand, in words.", max_tokens=2000, temperature=1)
while sum(type(event).__name__ == "Text" for event in handle.events) < 5: pass
"""


def shown(kernel, text):
    """Starts a cell, and waits until its output has this text."""
    return lambda code: kernel.start(code).until(lambda cell: text in str(cell.updates))


def decode(kernel, trial):
    return kernel.start(LONG.replace("%%chat", "%%chat --new")).until(lambda cell: "writing" in cell.states)


def prompt(kernel, trial):
    return _reading(kernel, f"%%chat --new --max-tokens 2\n{trial} " + "sea " * WORDS)


def end_of_prompt(kernel, trial):
    """What all trials have in common was read before, so that it is always the end that is read."""
    return _reading(kernel, f"%%chat --new --max-tokens 2\n{{sea}} {trial} " + "sand " * 1000)


def _reading(kernel, code):
    return kernel.start(code).until(lambda cell: any("%" in update["data"]["text/plain"] for update in cell.updates))


def loading(kernel, trial):
    return shown(kernel, "loading")("%chat model {other}")


def packing(kernel, trial):
    return shown(kernel, "laying out")("%chat model {other}")


def download(kernel, trial):
    return shown(kernel, "downloading")(f"%chat model {{url}}/m{trial}.gguf")


def schema(kernel, trial):
    """At any time of what is done before the prompt is read."""
    kernel.run(FIELDS.format(trial=trial))
    cell = kernel.start("%%chat --new --schema huge\nhello").until(lambda cell: "checking" in cell.printed)
    time.sleep(trial % 20 * 0.02)
    return cell


def panel(kernel, trial):
    return kernel.run(ASK_PANEL)


def interrupted(kernel, cell):
    """Seconds until the cell has ended, which it must by this."""
    since = kernel.interrupt()
    cell.finish()
    if cell.reply["status"] != "error" or cell.reply["ename"] != "Stopped":
        raise SystemExit(f"the cell ended with {cell.reply}")
    return cell.ended - since


def clicked(kernel, cell):
    """Seconds until the browser is told that the panel's reply has ended."""
    data = {"method": "custom", "content": {"kind": "stop"}}
    name = kernel.value("shown.widget.comm.comm_id")
    message = kernel.client.session.msg("comm_msg", {"comm_id": name, "data": data})
    since = time.monotonic()
    kernel.client.shell_channel.send(message)
    told = {}
    while not (told.get("kind") == "reply" and told.get("done")):
        told = kernel.message("iopub")["content"].get("data", {}).get("content", {})
    now = time.monotonic()
    kernel.ignored |= {message["header"]["msg_id"], cell.id}
    if "stopped" not in told["footer"]:
        raise SystemExit(f"the panel's reply ended with {told}")
    return now - since


@dataclass(frozen=True)
class State:
    """How a cell gets into it, and what is prepared once; `sea` is how many words the name {sea} stands for, and `copy`
    makes another model of the one given."""

    begin: Callable
    setup: str = ""
    sea: int = 0
    stop: Callable = interrupted
    copy: Callable | None = None
    next: str = NEXT


def stretched(model, path):
    """The model with a longer context; what it writes there makes no sense."""
    data, key = model.read_bytes(), string("llama.context_length")
    at = data.index(key) + len(key)
    path.write_bytes(data[:at] + value(STRETCHED) + data[at + len(value(STRETCHED)) :])
    return path


STATES = {
    "decode": State(decode),
    "prompt": State(prompt),
    "full": State(end_of_prompt, sea=8192 - 1100, next=NEXT_BEHIND),
    "long": State(end_of_prompt, sea=30_000 - 1100, copy=stretched, next=NEXT_BEHIND),
    "schema": State(schema, TOLD, copy=stretched),
    "panel": State(panel, PANEL, stop=clicked),
    "download": State(download),
    "loading": State(loading, SLOW_LOAD),
    "packing": State(packing, SLOW_PACKING),
}


def measure(name, model, trials, url):
    """Seconds of each trial, and MB that its own memory grew."""
    state, seconds = STATES[name], []
    with tempfile.TemporaryDirectory() as folder, Kernel(arguments=NO_HISTORY) as kernel:
        other = Path(folder) / "other.gguf"  # the same model by another name, so that it is loaded
        other.symlink_to(model)
        if state.copy:
            model = state.copy(model, Path(folder) / "copy.gguf")
        kernel.run(f"import os\nos.environ['NBLLM_MODELS'] = {folder!r}\n%load_ext nbllm")
        kernel.run(f"%config NbLLM.model = {str(model)!r}")
        kernel.run("%config NbLLM.seed = 1")  # else some replies end before they can be interrupted
        if state.copy:
            kernel.run(f"%config NbLLM.context = {STRETCHED}")
        kernel.run(f"sea = 'sea ' * {state.sea}")
        answered(kernel, state.next)
        kernel.run(state.setup.format(folder=folder) if "{folder" in state.setup else state.setup)
        start = kernel.start
        kernel.start = lambda code: start(code.replace("{other}", str(other)).replace("{url}", url))
        before = None
        for trial in range(-1, trials):  # the first starts what stays, and does not count
            cell = state.begin(kernel, trial)
            seconds.append(state.stop(kernel, cell))
            answered(kernel, state.next)
            before = before or held(kernel)
        after = held(kernel)
        if after[:2] != before[:2]:
            raise SystemExit(f"{name}: threads and open files were {before[:2]} and are {after[:2]}")
    return np.array(seconds[1:]), after[2] - before[2]


def answered(kernel, code):
    if (reply := kernel.run(code).reply)["status"] != "ok":
        raise SystemExit(f"a question after it ended with {reply}")


def held(kernel):
    """How many threads and open files the Jupyter kernel has, and how many MB of its own, once nothing runs."""
    kernel.run(ENDED)
    process = psutil.Process(kernel.manager.provisioner.pid)
    memory = process.memory_info()
    return process.num_threads(), process.num_fds(), (memory.rss - getattr(memory, "shared", 0)) / 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--model", type=Path, help="by default the default model, which is fetched if need be")
    parser.add_argument("--states", default=",".join(STATES))
    given = parser.parse_args()
    if given.model is None:
        from nbllm.catalogue.pull import pull

        given.model = pull()
    print(f"{given.model.name}, {given.trials} trials\n\n"
          "| state | median, ms | 99th percentile, ms | longest, ms | memory, MB | load |\n"
          "|---|--:|--:|--:|--:|--:|")  # fmt: skip
    with serve(b"GGUF" + bytes(1 << 20)) as server:
        server.pause = threading.Event()
        for state in given.states.split(","):
            seconds, grown = measure(state, given.model.resolve(), given.trials, server.url)
            times = 1000 * seconds
            print(f"| {state} | {np.median(times):.0f} | {np.percentile(times, 99):.0f} | {times.max():.0f} "
                  f"| {grown:+.0f} | {os.getloadavg()[0]:.1f} |", flush=True)  # fmt: skip
        server.pause.set()


if __name__ == "__main__":
    main()
