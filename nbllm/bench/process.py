"""A process of its own that loads a model, and is measured doing so: `python -m nbllm.bench.process MODEL FIGURE...`.

Prints lines of JSON: {"files": what was loaded}; {"begun": figure} and then its value, or why it is missing, with what
this process has in memory. `load_s` and `first_token_s` come first, without being asked for. A model that cannot be run
is {"error": what}. Imports nothing early that would delay the first token; knows nothing of what other figures mean.
"""

import argparse
import json
import sys
import time


def main(argv=None):
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("figures", nargs="*")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--begun", type=float, default=time.time(), help="when this process was started: time.time()")
    options = parser.parse_args(argv)

    from nbllm.errors import NbLLMError
    from nbllm.model import load

    try:
        before = time.perf_counter()
        model = load(options.model, threads=options.threads)
        loaded = time.perf_counter() - before
        for _ in model.generate("Hello", max_tokens=1, temperature=0):
            pass
        first_token = time.time() - options.begun
    except NbLLMError as error:
        tell(error=str(error))
        return 1
    files = (model.path, model.engine.weights.path)
    tell(files=[str(file.resolve()) for file in files if file])
    tell(figure="load_s", value=loaded, **in_memory())
    tell(figure="first_token_s", value=first_token, **in_memory())

    from nbllm.bench.figures import FIGURES, Bench, Missing

    with model:
        bench = Bench(model)
        for name in options.figures:
            tell(begun=name)
            try:
                tell(figure=name, value=FIGURES[name](bench), **in_memory())
            except Missing as why:
                tell(figure=name, missing=str(why))
    return 0


def in_memory():
    from nbllm.bench import memory

    now = memory.of()
    return {"private": now.private, "mapped": now.mapped, "from_disk": memory.from_disk()} if now else {}


def tell(**what):
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    sys.exit(main())
