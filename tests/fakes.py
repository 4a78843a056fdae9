"""Stand-ins below the engine's interface, so that what is above it can be tested without computing anything."""

from pathlib import Path

import numpy as np

from nbllm.errors import ContextFullError
from nbllm.model import Model
from nbllm.runtime.events import Done, Prefill, Stats, StopFlag, Token
from nbllm.runtime.weights import Weights
from nbllm.tokenizers import StreamDecoder, unwatched

SPECIALS = ("<|im_start|>", "<|im_end|>", "<s>")
START, END, BOS = range(256, 259)

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def tokens(*ids):
    return tuple(map(Token, ids))


class FakeTokenizer:
    """A token a byte, and three special ones."""

    bos_id, eos_id, add_bos = BOS, END, False
    special_ids, end_ids, vocab_size = frozenset({START, END, BOS}), frozenset({END}), 259
    space_prefix = False

    def encode(self, text, special=True, start=True, look=unwatched):
        may = special if callable(special) else lambda begin, end: end if special else begin
        ids, at = [], 0
        look()
        while at < len(text):
            found = [s for s in SPECIALS if text.startswith(s, at) and may(at, at + len(s)) == at + len(s)]
            ids += [256 + SPECIALS.index(found[0])] if found else text[at].encode()
            at += len(found[0]) if found else 1
        return ids

    def holds(self, text, count):
        return len(text) <= count * max(map(len, SPECIALS))

    def token_bytes(self, id):
        return bytes([id]) if id < 256 else SPECIALS[id - 256].encode()

    def decode(self, ids, start=True):
        return b"".join(map(self.token_bytes, ids)).decode(errors="replace")

    def stream(self):
        return StreamDecoder(self.token_bytes)


class FakeEngine:
    """Says what it was told to, a token a step, and keeps a cache of ids as the real one does.

    replies : what to generate in the next runs, each a str (a token a byte) or a list of ids, each ended by END.
    on_step : called before every token with its number; may set a flag, wait for something or raise.
    """

    threads = 1
    memory = {"weights": 3_000_000, "cache": 2_000_000}  # bytes
    weights = Weights(None, np.zeros(3_000_000, np.uint8))

    def __init__(self, *replies, context=4096, on_step=lambda step: None):
        self.replies, self.context, self.on_step = list(replies), context, on_step
        self.vocab_size = FakeTokenizer.vocab_size
        self.tokens, self.prompts, self.options, self.closed = [], [], [], 0

    def generate(self, ids, sampling, end_ids=frozenset(), stop=None, constraint=None, alternatives=0):
        if len(ids) >= self.context:
            raise ContextFullError(f"{len(ids)} tokens do not fit in {self.context}")
        stop = stop or StopFlag()
        self.prompts.append(list(ids))
        self.options.append(sampling)
        reply = self.replies.pop(0)
        reply = [*(reply.encode() if isinstance(reply, str) else reply), END]
        reused = next((i for i, (a, b) in enumerate(zip(self.tokens, ids)) if a != b), min(len(self.tokens), len(ids)))
        reused = min(reused, len(ids) - 1)  # the last token is always computed
        self.tokens = list(ids)
        yield Prefill(len(ids), len(ids), reused)
        count, reason = 0, "end"
        for id in reply:
            if stop.is_set():
                reason = "stopped"
                break
            self.on_step(count)
            if id in end_ids:
                break
            count += 1
            yield Token(id)
            if count == sampling.max_tokens or len(self.tokens) + 1 >= self.context:
                reason = "length" if count == sampling.max_tokens else "context"
                break
            self.tokens.append(id)
        yield Done(Stats(len(ids), reused, count, 0.5, 0.25), reason)

    def close(self):
        self.closed += 1


def fake_model(*replies, template=CHATML, add_bos=False, **engine):
    """A model that gives these replies; `model.engine.prompts` has the ids it was asked with."""
    tokenizer = FakeTokenizer()
    tokenizer.add_bos = add_bos
    metadata = {} if template is None else {"tokenizer.chat_template": template}
    return Model("fake", Path("fake.gguf"), metadata, tokenizer, FakeEngine(*replies, **engine))
