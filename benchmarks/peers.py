"""One other engine's speed on one GGUF file, measured as `nbllm/bench/figures.py` measures nbllm's.

    python benchmarks/peers.py ENGINE MODEL [--threads N]

Prints one line of JSON: the figures and the engine's version; or {"absent": why} if it is not installed in this Python,
or {"refused": why} if it does not run the file. Needs nothing of nbllm, so that engines can live in their own Python.
"""

import argparse
import json
import time
from importlib.metadata import version
from statistics import median

import numpy as np

PREFILL = 512
DECODE, STEPS = 128, 64  # tokens in the context halfway through decoding, and how many are decoded
SECONDS, LEAST, MOST = 2, 3, 9  # a run is repeated for about so long, within these bounds
CONTEXT = 1024


class Refused(Exception):
    """Why an engine does not run the file."""


class LlamaCpp:
    """llama.cpp by its C interface: no sampling and no text, which is its fastest. `repack` as it does by default."""

    package = "llama-cpp-python"

    def __init__(self, path, threads, repack=True):
        import llama_cpp as lib

        self._lib = lib
        lib.llama_backend_init()
        options = lib.llama_model_default_params()
        options.n_gpu_layers = 0
        options.use_extra_bufts = repack
        model = lib.llama_model_load_from_file(path.encode(), options)
        if not model:
            raise Refused("it does not load the file")
        options = lib.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = CONTEXT, PREFILL, PREFILL
        options.n_threads = options.n_threads_batch = threads
        self._context = lib.llama_init_from_model(model, options)
        self._vocab = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
        self._random = np.random.default_rng(0)

    def run(self, prompt, steps):
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        return prompt, self._seconds(prompt), [self._seconds(1) for _ in range(steps)]

    def _seconds(self, n):
        lib = self._lib
        ids = (lib.llama_token * n)(*self._random.integers(0, self._vocab, n).tolist())
        begun = time.perf_counter()
        if lib.llama_decode(self._context, lib.llama_batch_get_one(ids, n)):
            raise Refused("it does not compute the tokens")
        lib.llama_synchronize(self._context)
        return time.perf_counter() - begun


class OpenVINO:
    package = "openvino-genai"

    def __init__(self, path, threads):
        import openvino as ov
        import openvino_genai as genai

        try:
            self._pipe = genai.LLMPipeline(path, "CPU", INFERENCE_NUM_THREADS=threads)
        except Exception as error:  # of many kinds
            raise Refused((str(error).strip().splitlines() or [repr(error)])[-1]) from error
        self._ov, self._genai = ov, genai
        self._random = np.random.default_rng(0)

    def run(self, prompt, steps):
        config = self._genai.GenerationConfig()
        config.max_new_tokens, config.do_sample, config.ignore_eos = steps + 1, False, True
        ids = self._random.integers(300, 30000, (1, prompt))
        metrics = self._pipe.generate(self._ov.Tensor(ids), config).perf_metrics
        times = [ms / 1e3 for ms in metrics.raw_metrics.m_new_token_times]
        return prompt, metrics.get_ttft().mean / 1e3, [after - before for before, after in zip(times, times[1:])]


class GPT4All:
    """GPT4All takes text only: " a" is a token in every vocabulary, and it tells how many tokens it read."""

    package = "gpt4all"

    def __init__(self, path, threads):
        import gpt4all

        try:
            self._model = gpt4all.GPT4All(path, allow_download=False, device="cpu", n_threads=threads, n_ctx=CONTEXT)
        except Exception as error:  # of no kind of its own
            raise Refused(str(error)) from error
        self._read = 0
        self._model.model._prompt_callback = self._count

    def run(self, prompt, steps):
        self._read = 0
        times = []
        begun = time.perf_counter()
        self._model.generate(
            " a" * prompt, max_tokens=steps + 1, temp=0, top_k=1, n_batch=PREFILL,
            callback=lambda id, text: times.append(time.perf_counter()) or True,
        )  # fmt: skip
        if not times:
            raise Refused("it wrote no token")
        return self._read, times[0] - begun, [after - before for before, after in zip(times, times[1:])]

    def _count(self, id):
        self._read += 1
        return True


PEERS = {
    "llama.cpp": LlamaCpp,
    "llama.cpp, not repacked": lambda path, threads: LlamaCpp(path, threads, repack=False),
    "OpenVINO GenAI": OpenVINO,
    "GPT4All": GPT4All,
}


def repeated(engine, prompt, steps):
    """Tokens per second of the prompts, and of the steps."""
    engine.run(min(prompt, 64), min(steps, 2))  # what is touched for the first time is slow
    rates, all_steps = [], []
    begun = time.perf_counter()
    while len(rates) < LEAST or (len(rates) < MOST and time.perf_counter() - begun < SECONDS):
        tokens, seconds, written = engine.run(prompt, steps)
        rates.append(tokens / seconds)
        all_steps += written
    return median(rates), 1 / median(all_steps) if all_steps else None


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("engine", choices=PEERS)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    try:
        engine = PEERS[options.engine](options.model, options.threads)
        prefill, _ = repeated(engine, PREFILL, 0)
        _, decode = repeated(engine, DECODE - STEPS // 2, STEPS)
    except ImportError as error:
        told = {"absent": str(error)}
    except Refused as error:
        told = {"refused": str(error)}
    else:
        told = {"prefill_512_tok_s": prefill, "decode_tok_s": decode}
        told["version"] = f"{engine.package} {version(engine.package)}"
    print(json.dumps(told))


if __name__ == "__main__":
    main()
