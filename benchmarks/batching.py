"""How much faster many prompts are answered together: nbllm and llama.cpp, each one by one and together, in turn.

    python benchmarks/batching.py MODEL [--prompts N] [--rounds N] [--threads N] [--peer-python PATH]

Prompts of 60 random tokens follow an instruction of 300 that they share, which every engine reads once; 64 tokens are
written to each, always the likeliest. Prints one line of JSON: prompts per second of each way, medians of the rounds.
"""

import argparse
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

INSTRUCTION, PROMPT, WRITTEN = 300, 60, 64  # tokens
VOCABULARY = 30_000  # ids below that are plain tokens in every model's vocabulary
TOGETHER = 32  # sequences of llama.cpp in a step, as of nbllm


def task(prompts):
    random = np.random.default_rng(0)
    instruction = random.integers(300, VOCABULARY, INSTRUCTION).tolist()
    return instruction, random.integers(300, VOCABULARY, (prompts, PROMPT)).tolist()


def nbllm_alone(model, threads, instruction, prompts):
    from nbllm.runtime.options import Sampling

    engine, sampling = _engine(model, threads), Sampling(temperature=0, repeat_penalty=1, max_tokens=WRITTEN)
    list(engine.generate(instruction, sampling.updated(max_tokens=1)))
    begun = time.perf_counter()
    for prompt in prompts:
        for _ in engine.generate(instruction + prompt, sampling):
            pass
    return time.perf_counter() - begun


def nbllm_together(model, threads, instruction, prompts):
    from nbllm.runtime.batch import Batch
    from nbllm.runtime.events import StopFlag
    from nbllm.runtime.options import Sampling

    batch = Batch(_engine(model, threads).twin(1 << 15))
    sampling = Sampling(temperature=0, repeat_penalty=1, max_tokens=WRITTEN)
    batch.add(-1, instruction, sampling.updated(max_tokens=1))
    begun = time.perf_counter()
    for n, prompt in enumerate(prompts):
        batch.add(n, instruction + prompt, sampling)
    while len(batch):
        batch.step(StopFlag())
    return time.perf_counter() - begun


def _engine(model, threads):
    import nbllm

    return nbllm.load(model, context=1024, threads=threads).engine


def llama_alone(model, threads, instruction, prompts, flash=False):
    lib, context = _llama(model, threads, 1, flash)
    memory, vocab = lib.llama_get_memory(context), _vocab(lib, context)
    _decode(lib, context, [(0, at, id, False) for at, id in enumerate(instruction)])
    begun = time.perf_counter()
    for prompt in prompts:
        lib.llama_memory_seq_rm(memory, 0, INSTRUCTION, -1)
        tokens = [(0, INSTRUCTION + at, id, at == PROMPT - 1) for at, id in enumerate(prompt)]
        for n in range(WRITTEN):
            _decode(lib, context, tokens)
            logits = np.ctypeslib.as_array(lib.llama_get_logits_ith(context, -1), (vocab,))
            tokens = [(0, INSTRUCTION + PROMPT + n, int(logits.argmax()), True)]
    return time.perf_counter() - begun


def llama_together(model, threads, instruction, prompts, flash=False):
    """As llama.cpp's own example of parallel sequences does it: a sequence that has ended makes room for the next."""
    lib, context = _llama(model, threads, TOGETHER + 1, flash)
    memory, vocab = lib.llama_get_memory(context), _vocab(lib, context)
    _decode(lib, context, [(0, at, id, False) for at, id in enumerate(instruction)])
    begun = time.perf_counter()
    waiting, running = prompts[::-1], {}  # sequence -> [tokens to compute, how many were written]
    while waiting or running:
        for sequence in range(1, TOGETHER + 1):
            if sequence not in running and waiting:
                lib.llama_memory_seq_rm(memory, sequence, -1, -1)
                lib.llama_memory_seq_cp(memory, 0, sequence, -1, -1)
                prompt = waiting.pop()
                running[sequence] = [
                    [(sequence, INSTRUCTION + at, id, at == PROMPT - 1) for at, id in enumerate(prompt)],
                    0,
                ]
        tokens = [token for more, _ in running.values() for token in more]
        _decode(lib, context, tokens)
        rows = {sequence: row for row, (sequence, _, _, wanted) in enumerate(tokens) if wanted}
        for sequence, row in rows.items():
            logits = np.ctypeslib.as_array(lib.llama_get_logits_ith(context, row), (vocab,))
            written = running[sequence][1] = running[sequence][1] + 1
            running[sequence][0] = [(sequence, INSTRUCTION + PROMPT + written - 1, int(logits.argmax()), True)]
            if written == WRITTEN:
                del running[sequence]
    return time.perf_counter() - begun


def _llama(model, threads, sequences, flash):
    import llama_cpp as lib

    lib.llama_backend_init()
    options = lib.llama_model_default_params()
    options.n_gpu_layers = 0
    loaded = lib.llama_model_load_from_file(model.encode(), options)
    options = lib.llama_context_default_params()
    options.n_seq_max, options.kv_unified = sequences, True
    options.flash_attn_type = int(flash)  # which is faster depends on the processor and the length
    options.n_ctx = INSTRUCTION + sequences * (PROMPT + WRITTEN)
    options.n_batch = options.n_ubatch = 2048
    options.n_threads = options.n_threads_batch = threads
    return lib, lib.llama_init_from_model(loaded, options)


def _vocab(lib, context):
    return lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(lib.llama_get_model(context)))


def _decode(lib, context, tokens):
    """tokens: (sequence, position, id, whether its logits are wanted)"""
    batch = lib.llama_batch_init(len(tokens), 0, 1)
    batch.n_tokens = len(tokens)
    for n, (sequence, position, id, wanted) in enumerate(tokens):
        batch.token[n], batch.pos[n], batch.n_seq_id[n], batch.seq_id[n][0] = id, position, 1, sequence
        batch.logits[n] = wanted
    if lib.llama_decode(context, batch):
        raise RuntimeError("llama.cpp did not compute the tokens")
    lib.llama_synchronize(context)
    lib.llama_batch_free(batch)


WAYS = {
    "nbllm, one by one": nbllm_alone,
    "nbllm, together": nbllm_together,
    "llama.cpp, one by one": llama_alone,
    "llama.cpp, together": llama_together,
    "llama.cpp, one by one, flash attention": partial(llama_alone, flash=True),
    "llama.cpp, together, flash attention": partial(llama_together, flash=True),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--peer-python", default=sys.executable, help="a Python that has llama-cpp-python")
    parser.add_argument("--way", choices=WAYS, help="measure one, once, in this process")
    options = parser.parse_args()
    if options.way:
        print(json.dumps(WAYS[options.way](options.model, options.threads, *task(options.prompts))))
        return
    seconds = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way, found in seconds.items():
            python = options.peer_python if way.startswith("llama") else sys.executable
            command = [python, Path(__file__).resolve(), options.model, "--way", way, "--prompts", str(options.prompts),
                       "--threads", str(options.threads)]  # fmt: skip
            ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True)
            found.append(json.loads(ran.stdout.splitlines()[-1]))
    print(json.dumps({way: options.prompts / median(found) for way, found in seconds.items()}))


if __name__ == "__main__":
    main()
