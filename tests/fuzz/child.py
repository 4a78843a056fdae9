"""Opens damaged models one after the other, through to a step of the engine. Runs as a process of its own,
which may die.

Takes the numbers of cases from standard input and answers each with a line: its number and what came of it. Its time on
the processor and its memory are bounded, so what takes too much of either ends it, and whoever started it sees at
which case.
"""

import os
import resource
import signal
import sys
import tempfile
import warnings
from pathlib import Path

from fuzz.damage import case
from fuzz.seeds import names

import numpy as np
import psutil

import nbllm.model
from nbllm.errors import NbLLMError
from nbllm.runtime.memory import Memory
from nbllm.runtime.weights import packed_cache

SECONDS = 2  # of the processor, for one case
FREE = 256 << 20  # bytes, what the model is told that is free
MEMORY = 768 << 20  # bytes that the process may map more than it has when it begins


def outcome(path):
    """What comes of a model file, in words: "refused: ..." by one line, "ran", or else what is wrong."""
    try:
        with nbllm.load(path, threads=1, progress=lambda done, total: None) as model:
            prompt = list(range(min(4, model.tokenizer.vocab_size, model.context - 1)))
            done = list(model.generate(prompt, temperature=0, max_tokens=3))[-1]
            if not np.isfinite(model.logits(prompt)).all():
                return "wrong: logits are not finite, and that was not said"
            nbllm.Chat(model, max_tokens=2)("hello the moon")  # with the file's template
            return f"ran: {done.finish_reason}"
    except NbLLMError as error:
        text = str(error)
        return (
            f"refused: {text}"
            if "\n" not in text and 20 < len(text) < 1200
            else f"wrong: a message like {text[:300]!r}"
        )
    except Exception as error:
        where = error.__traceback__
        while where.tb_next:
            where = where.tb_next
        place = f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}"
        return f"wrong: {type(error).__name__} in {place}: {' '.join(str(error).split())[:200]}"


def main():
    warnings.simplefilter("error")
    nbllm.model.memory = lambda: Memory(FREE, FREE)
    packed_cache.folder = lambda: None
    case(0)  # makes the seeds
    mapped = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory(dir=sys.argv[1]) as folder:
        for line in sys.stdin:
            damaged = case(int(line))
            paths = [Path(folder) / name for name in names(damaged.seed)]
            for path, raw in zip(paths, damaged.parts, strict=True):
                path.unlink(missing_ok=True)
                path.write_bytes(raw)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # its signal ends the process
            told = outcome(paths[0])
            signal.setitimer(signal.ITIMER_PROF, 0)
            if damaged.wrong and told.startswith("ran"):
                told = "wrong: accepted, though " + damaged.story[0]
            print(int(line), told, flush=True)


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
