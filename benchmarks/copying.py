"""How much guessing gains where a reply copies its prompt: a function is written again with one name changed.

    python benchmarks/copying.py [MODEL] [--rounds N] [--threads N]

The reply is given: every token of it is computed as always, and then the right one is taken, whatever the model thinks,
as from a model that can do the task. So this tells what guessing is worth, and nothing of the model. Each round writes
the reply with guesses and without; prints one line of JSON with the medians.
"""

import argparse
import inspect
import json
import time
from statistics import median
from unittest import mock

import nbllm
from nbllm.runtime import generation
from nbllm.runtime.events import Done, Token
from nbllm.runtime.options import Sampling

NAMES = "guesses", "candidates"


def task(tokenizer):
    """The ids of the prompt and of the right reply."""
    function = inspect.getsource(generation.Generation.take)
    prompt = f"Write this again, with {NAMES[0]} called {NAMES[1]}:\n\n{function}\n\n"
    return tokenizer.encode(prompt), tokenizer.encode(function.replace(*NAMES))


def seconds(model, prompt, reply, guessing):
    """What writing the reply takes, without reading the prompt."""
    engine = model.engine
    engine.tokens, engine.guessing = [], guessing
    right = iter(reply)
    with mock.patch.object(generation.Sampler, "pick", lambda *_: next(right)):
        begun = None
        for event in engine.generate(prompt, Sampling(max_tokens=len(reply))):
            if isinstance(event, Token) and begun is None:
                begun = time.perf_counter()
            elif isinstance(event, Done):
                return time.perf_counter() - begun


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", nargs="?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    with nbllm.load(options.model, threads=options.threads) as model:
        prompt, reply = task(model.tokenizer)
        spent = {guessing: [] for guessing in (False, True)}
        for _ in range(options.rounds):
            for guessing, times in spent.items():
                times.append(seconds(model, prompt, reply, guessing))
    plain, guessed = (len(reply) / median(spent[guessing]) for guessing in (False, True))
    figures = {"tokens": len(reply), "plain_tok_s": plain, "guessing_tok_s": guessed, "ratio": guessed / plain}
    print(json.dumps({"model": model.name} | figures))


if __name__ == "__main__":
    main()
