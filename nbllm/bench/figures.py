"""What is measured of a loaded model, one function a figure; its unit is in its name.

Knows no file and no output. A further figure is a function here and its name in `FIGURES`; `report.py` shows it.
"""

import time
from statistics import median

import numpy as np

from nbllm.runtime.events import Done, Token
from nbllm.runtime.options import Sampling

PREFILL = 512  # tokens of the prompt
DECODE, STEPS = 128, 64  # tokens in the context halfway through decoding, and how many are decoded
LONG, LONG_STEPS = 4096, 32  # tokens in the context at the end of decoding, and how many are decoded
SECONDS, LEAST, MOST = 2, 3, 9  # a run is repeated for about so long, within these bounds
PLAIN = Sampling(temperature=0, repeat_penalty=1)  # the likeliest token, whatever came before


class Missing(Exception):
    """Why a figure cannot be measured here."""


class Bench:
    """A loaded model to be measured."""

    def __init__(self, model):
        self._engine = model.engine
        self._engine.guessing = False  # every token takes a step of its own, whatever the text is
        self._random = np.random.default_rng(0)

    def run(self, prompt, steps):
        """Seconds to read a prompt of so many random tokens, and of every step after that.

        The prompt shares nothing with the one before it, so every token is computed.
        """
        if prompt + max(steps, 1) > self._engine.context:
            raise Missing(f"the model's context is {self._engine.context:,} tokens")
        ids = self._random.integers(0, self._engine.vocab_size, prompt)
        times = []
        for event in self._engine.generate(ids, PLAIN.updated(max_tokens=steps + 1)):
            if isinstance(event, Token):
                times.append(time.perf_counter())
            elif isinstance(event, Done):
                return event.stats.prefill_seconds, [after - before for before, after in zip(times, times[1:])]

    def repeated(self, prompt, steps):
        """`run` again and again: the seconds of each prompt, and of each step."""
        self.run(min(prompt, 64), min(steps, 2))  # what is touched for the first time is slow
        prompts, all_steps = [], []
        begun = time.perf_counter()
        while len(prompts) < LEAST or (len(prompts) < MOST and time.perf_counter() - begun < SECONDS):
            read, written = self.run(prompt, steps)
            prompts.append(read)
            all_steps += written
        return prompts, all_steps


def prefill(bench):
    prompts, _ = bench.repeated(PREFILL, 0)
    return PREFILL / median(prompts)


def decode(bench):
    _, steps = bench.repeated(DECODE - STEPS // 2, STEPS)
    return 1 / median(steps)


def decode_long(bench):
    _, steps = bench.run(LONG - LONG_STEPS, LONG_STEPS)
    return 1 / median(steps)


FIGURES = {
    "prefill_512_tok_s": prefill,
    "decode_tok_s": decode,
    "decode_4096_tok_s": decode_long,
}
