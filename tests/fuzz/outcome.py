"""What comes of an input by a stranger, in words, and the bounds that it is tried in. Knows nothing of where inputs
come from."""

import resource
import warnings
from pathlib import Path

import numpy as np
import psutil

import nbllm.model
from nbllm.catalogue import listing
from nbllm.catalogue.places import Found
from nbllm.errors import NbLLMError
from nbllm.runtime.memory import Memory
from nbllm.runtime.weights import packed_cache

SECONDS = 2  # of the processor, for one input
FREE = 256 << 20  # bytes, what the model is told that is free
MEMORY = 768 << 20  # bytes that the process may map more than it has when it begins
TEXT = "Hello  the moon, 月は存在する。\n\n\t12345 <|im_end|> ééé \U0001f600 \ud800" + " ab" * 100 + "ab" * 100


def outcome(use, *given):
    """What comes of it: "refused: ..." by one line, "ran: ...", as `use` says, or else "wrong: ..."."""
    try:
        return f"ran: {use(*given)}"
    except NbLLMError as error:
        text = str(error)
        if "\n" not in text and 20 < len(text) < 1200:
            return f"refused: {text}"
        return f"wrong: a message like {text[:300]!r}"
    except Exception as error:
        where = error.__traceback__
        while where.tb_next:
            where = where.tb_next
        place = f"{Path(where.tb_frame.f_code.co_filename).name}:{where.tb_lineno}"
        return f"wrong: {type(error).__name__} in {place}: {' '.join(str(error).split())[:200]}"


def model(path, **asked):
    """List a model file, and open it, through to a step of the engine and a reply of what is asked; why it ended."""
    listing._found(Found(path.stem, path, path.stat().st_size), Memory(FREE, FREE), None)
    with nbllm.load(path, threads=1, progress=lambda done, total: None) as model:
        model.detokenize(model.tokenize(TEXT))
        prompt = list(range(min(4, model.tokenizer.vocab_size, model.context - 1)))
        done = list(model.generate(prompt, temperature=0, max_tokens=3))[-1]
        assert np.isfinite(model.logits(prompt)).all(), "logits are not finite, and that was not said"
        nbllm.Chat(model, max_tokens=2)("hello the moon", **asked)  # with the file's template
        return done.finish_reason


def bound():
    """Bound what this process may take from here on. Its time is bounded by whoever gives it inputs."""
    warnings.simplefilter("error")
    nbllm.model.memory = lambda: Memory(FREE, FREE)
    packed_cache.folder = lambda: None
    mapped = psutil.Process().memory_info().vms
    resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
