"""What nbllm and the other engines make of the same damaged model files:

    python damaged.py [--cases 1000] [--peer-python PATH] [--engines ENGINE ...] [--model FILE]

The files are small random models that every engine runs while they are whole, which is looked at first, damaged as
`tests/fuzz/damage.py` damages them, drawn from the numbers of the cases. Each is opened in a process of its own,
through to a few tokens, within bounds of `openers.py` that are the same for all. Before that, whole ones, and the
default model, are cut to half once they are loaded. Prints the counts as a table, and which cases did more than be
refused or run. Needs Linux.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from unittest import mock

from openers import ENGINES

from nbllm.catalogue import find

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import tiny_gguf  # noqa: E402
from fuzz import damage  # noqa: E402

HERE = Path(__file__).resolve().parent
WIDE = {"layers": 1, "width": 256, "feed_forward": 512}
SHAPES = {  # name, none of `fuzz.seeds` -> options of a model; and its file type, which some engines insist on
    "shared Q4_0": ({"layers": 1, "block_type": "Q4_0"}, 2),
    "shared Q4_0, untied": (WIDE | {"layers": 2, "block_type": "Q4_0", "tied": False}, 2),
    "shared Q4_1": (WIDE | {"block_type": "Q4_1"}, 3),
    "shared Q8_0": (WIDE | {"block_type": "Q8_0"}, 7),
    "shared F16": (WIDE | {"block_type": "F16", "embedding_type": "F16"}, 1),
}
COUNTED = {  # what came of a file -> its row
    "refused": "were refused by an exception",
    "ran": "ran",
    "signal": "ended the process by a signal",
    "ended": "ended the process otherwise",
    "time": "took longer than was allowed",
    "memory": "took more memory than was allowed",
}
CONTRADICT, CUT = "contradict themselves and ran", "cut"


@cache
def seeds():
    """Name to [bytes], as `fuzz.seeds` has them: models with all that any of the engines wants to be told."""
    found = {}
    for name, (options, file_type) in SHAPES.items():
        metadata, tensors = tiny_gguf.llama(**options)
        metadata |= {
            "general.file_type": file_type,
            "general.quantization_version": 2,
            "llama.vocab_size": len(metadata["tokenizer.ggml.tokens"]),
            "tokenizer.ggml.pre": "gpt-2",  # which old engines know too
            "tokenizer.ggml.padding_token_id": 2,
        }
        found[name] = [tiny_gguf.gguf_bytes(metadata, tensors)]
    return found


def case(number):
    """A damaged file, drawn from its number: `damage.Case`."""
    with mock.patch.object(damage, "seeds", seeds):
        return damage.case(number)


class Opener:
    """An engine that opens files, in processes of `openers.py`. A context manager."""

    def __init__(self, engine, python, folder):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "NBLLM_CACHE": str(folder / "packed")}
        self._process = subprocess.Popen(
            [python, HERE / "openers.py", engine], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=environment, text=True,
        )  # fmt: skip
        self.about = json.loads(self._process.stdout.readline())
        self._path = folder / "m.gguf"
        self.title = f"{engine} {self.about.get('version')}"
        self.counts = Counter()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._process.communicate()

    def open(self, raw, cut=False):
        """What came of a file of these bytes: a key of COUNTED, and more."""
        self._path.write_bytes(raw)
        print(json.dumps({"path": str(self._path), "cut": cut}), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


def wholes(opener, model):
    """Bytes of the files that are cut once they are loaded: the seeds, which the engine must run, and the model."""
    for name, [raw] in seeds().items():
        if (told := opener.open(raw))[0] != "ran":
            raise SystemExit(f"{opener.title} does not run {name}, which is whole: {told}")
        yield raw
    if (told := opener.open(model))[0] == "ran":
        yield model
    else:
        say(f"{opener.title} does not run the model: {told}")


def count(opener, number):
    damaged = case(number)
    what, more = opener.open(damaged.parts[0])
    contradicts = what == "ran" and damaged.wrong
    opener.counts[what] += 1
    opener.counts[CONTRADICT] += contradicts
    if contradicts or what not in ("ran", "refused"):
        say(f"case {number}: {opener.title}: {what} {more[:60]!r}: {damaged.seed}, {', '.join(damaged.story)}")


def cut(opener, raw):
    what, more = opener.open(raw, cut=True)
    opener.counts[CUT] += 1
    opener.counts[CUT, what] += 1
    say(f"cut once loaded: {opener.title}: {what} {more[:60]!r}")


def table(found, tried):
    """Markdown: a column for each engine of `found`, its title to its Counter."""
    rows = [("were tried", [tried] * len(found))]
    rows += [(title, [counts[what] for counts in found.values()]) for what, title in COUNTED.items()]
    rows += [(CONTRADICT, [counts[CONTRADICT] for counts in found.values()])]
    rows += [("were whole, and cut to half once loaded", [counts[CUT] for counts in found.values()])]
    rows += [(f"- {title}", [counts[CUT, what] for counts in found.values()]) for what, title in COUNTED.items()]
    lines = [f"| damaged model files that | {' | '.join(found)} |", "|---|" + "--:|" * len(found)]
    return "\n".join(lines + [f"| {title} | {' | '.join(f'{count:,}' for count in cells)} |" for title, cells in rows])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), metavar="ENGINE")
    parser.add_argument("--peer-python", default=sys.executable, metavar="PATH", help="where the other engines are")
    parser.add_argument("--model", help="to cut once it is loaded; otherwise the default model")
    given = parser.parse_args()
    model = find(given.model).read_bytes()
    with ExitStack() as stack:
        openers = []
        for engine in given.engines:
            python = sys.executable if engine == "nbllm" else given.peer_python
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            opener = stack.enter_context(Opener(engine, python, Path(folder)))
            if "absent" in opener.about:
                say(f"{engine} is not installed: {opener.about['absent']}")
            else:
                openers.append(opener)
        for opener in openers:
            for raw in list(wholes(opener, model)):
                cut(opener, raw)
        for number in range(given.cases):
            for opener in openers:
                count(opener, number)
            if number % 100 == 99:
                say(f"{number + 1:,} files")
        print(table({opener.title: opener.counts for opener in openers}, given.cases))


def say(line):
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
