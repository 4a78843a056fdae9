"""Fidelity: the divergence of an engine's logits from a plain float32 forward pass over the dequantised weights.

    python benchmarks/fidelity.py MODEL [TEXT] [--engine nbllm|llama.cpp] [--positions N] [--chunk N]

Prints one line of JSON. llama.cpp is asked as its users ask it: llama-cpp-python at its defaults (the whole chunk in
one batch, key/value cache in float16). Needs the repository: the reference is that of the tests.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
import divergence  # noqa: E402


def nbllm_logits(path, chunk):
    import nbllm

    return nbllm.load(path, context=chunk + 1).logits


def llama_cpp_logits(path, chunk):
    import llama_cpp

    llama = llama_cpp.Llama(str(path), n_ctx=chunk, n_batch=chunk, logits_all=True, verbose=False)

    def logits(ids):
        llama.reset()
        llama.eval(ids)
        return np.array(llama.scores[: len(ids)])

    return logits


ENGINES = {"nbllm": nbllm_logits, "llama.cpp": llama_cpp_logits}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path, nargs="?", default=divergence.TEXT)
    parser.add_argument("--engine", choices=ENGINES, default="nbllm")
    parser.add_argument("--positions", type=int, default=divergence.POSITIONS)
    parser.add_argument("--chunk", type=int, default=divergence.CHUNK)
    options = parser.parse_args()
    ids = divergence.token_ids(options.model, options.text, options.positions)
    logits = ENGINES[options.engine](options.model, options.chunk)
    figures = divergence.measure(options.model, ids, logits, options.chunk)
    print(json.dumps({"engine": options.engine, "model": options.model.name, "chunk": options.chunk} | figures))


if __name__ == "__main__":
    main()
