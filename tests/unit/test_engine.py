"""The engine: right logits, the same bits however a prompt is divided, and nothing lost when it is stopped."""

import threading

import architectures
import numpy as np
import oracle_models
import pytest
import tiny_gguf

from nbllm.errors import ContextFullError, ModelFileError, OptionError
from nbllm.formats.open import open_model
from nbllm.runtime import lookup
from nbllm.runtime.cache import Sequence
from nbllm.runtime.engine import Engine
from nbllm.runtime.events import Done, Prefill, StopFlag, Token
from nbllm.runtime.options import Sampling
from nbllm.runtime.program import PEAK
from nbllm.runtime.spans import attended, together

GREEDY = Sampling(temperature=0, repeat_penalty=1, max_tokens=12)
PROMPT = [int(id) for id in np.random.default_rng(5).integers(3, 300, 200)]


@pytest.fixture
def engine(tiny_model):
    with open_model(tiny_model) as gguf:
        return Engine(gguf, threads=2)


def run(engine, ids, sampling=GREEDY, **options):
    """The tokens and the last event of a generation."""
    events = list(engine.generate(ids, sampling, **options))
    assert all(isinstance(event, Prefill | Token) for event in events[:-1])
    return [event.id for event in events if isinstance(event, Token)], events[-1]


@pytest.mark.parametrize("name", oracle_models.MODELS)
def test_logits_are_those_that_other_programs_recorded(name, tmp_path):
    ids, logits = oracle_models.recorded(name)
    with open_model(oracle_models.write(name, tmp_path / "model.gguf")) as gguf:
        ours = Engine(gguf).logits(ids)
    # Keys and values are kept in half precision here and in float32 there; the tied model's logits are three times as
    # large.
    assert np.abs(ours - logits).max() < max(0.05, oracle_models.tolerance(name))
    assert np.array_equal(ours.argmax(1), logits.argmax(1))


def test_a_reply_is_the_same_however_much_of_the_prompt_is_reused(engine):
    fresh, done = run(engine, PROMPT)
    assert done.stats.reused_tokens == 0 and done.stats.generated_tokens == len(fresh) == 12
    for shared in (0, 1, 77, 128, 199, 200):
        engine.tokens = []
        run(engine, PROMPT[:shared] + [7, 8, 9])
        again, done = run(engine, PROMPT)
        assert again == fresh
        assert done.stats.reused_tokens >= min(shared, len(PROMPT) - 1)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(temperature=1.5, repeat_penalty=1, seed=3)])
def test_guessing_changes_nothing_but_the_number_of_steps(engine, sampling, monkeypatch):
    sampling = sampling.updated(max_tokens=50)
    prompt = PROMPT[:40] * 3
    steps, step = [], engine._step
    monkeypatch.setattr(engine, "_step", lambda ids, *rest: steps.append(len(ids)) or step(ids, *rest))
    monkeypatch.setattr(lookup.Lookup, "_pays", lambda self: True)
    guessed, done = run(engine, prompt, sampling)
    written = [size for at, size in enumerate(steps) if sum(steps[:at]) >= len(prompt)]  # the steps after the prompt's
    assert done.stats.guessed_tokens == 50 - 1 - len(written)
    assert max(steps[2:]) > 1 and (sampling.temperature or len(steps) < 40)
    engine.guessing = False
    engine.tokens = []
    again, done = run(engine, prompt, sampling)
    assert again == guessed and done.stats.guessed_tokens == 0
    engine.guessing = True
    for most in range(1, 9):  # the reply's end cuts guesses, too
        assert run(engine, prompt, sampling.updated(max_tokens=most))[0] == guessed[:most]


def test_guesses_are_what_followed_the_last_time(monkeypatch):
    monkeypatch.setattr(lookup.Lookup, "_pays", lambda self: True)
    seen = lookup.Lookup([1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 9, 1, 2])
    assert seen.guess(3) == []
    seen.push(3)
    assert seen.guess(3) == [9, 1, 2] and seen.guess(1) == [9] and seen.guess(0) == []


def test_guessing_stops_where_it_does_not_pay():
    seen = lookup.Lookup([1, 2, 3] * 5)
    assert seen.guess(3) == []  # how long a step takes alone is not known yet
    seen.learn(0, 0, 1.0)
    assert seen.guess(3) == [1, 2, 3]
    for _ in range(30):
        seen.learn(3, 0, 1.2)
    assert sum(bool(seen.guess(3)) for _ in range(320)) == 10  # now and then, to see whether it does again
    for _ in range(30):
        seen.learn(3, 1, 1.2)
    assert all(seen.guess(3) for _ in range(10))


@pytest.mark.parametrize("cache_bits", [16, 8])
def test_sequences_that_share_steps_get_the_logits_that_they_get_alone(tiny_model, cache_bits):
    random = np.random.default_rng(8)
    with open_model(tiny_model) as gguf:
        alone, together = (Engine(gguf, threads=2, cache_bits=cache_bits, room=room) for room in (None, 1024))
        texts = [random.integers(0, alone.vocab_size, n).tolist() for n in (200, 130, 7, 128, 64)]
        expected = [alone.logits(text) for text in texts]
    stop = StopFlag()
    sequences = [Sequence() for _ in texts]
    while any(len(sequence.tokens) < len(text) for sequence, text in zip(sequences, texts, strict=True)):
        parts = []
        for sequence, text in zip(sequences, texts, strict=True):
            more = text[len(sequence.tokens) : len(sequence.tokens) + int(random.choice([0, 1, 2, 30]))]
            if more and random.random() < 0.1 and sequence.tokens:
                del sequence.tokens[random.integers(len(sequence.tokens)) :]  # and goes on from there
            elif more:
                parts.append((sequence, more, min(len(more), 3)))
        if not parts:
            continue
        logits, peaks = together.step(parts, stop)
        row = 0
        for sequence, _, outputs in parts:
            n = len(sequence.tokens)
            right = expected[sequences.index(sequence)][n - outputs : n]
            assert np.array_equal(logits[row : row + outputs], right)
            blocks = [right[:, at : at + PEAK].max(1) for at in range(0, right.shape[1], PEAK)]
            assert np.array_equal(peaks[row : row + outputs], np.stack(blocks, 1))
            row += outputs


def test_sequences_that_begin_with_the_same_pages_are_attended_together():
    a, b, c = [4, 5, 6], [4, 5, 7, 8], [9, 5, 7]
    spans, pages = attended([(a, 1), (b, 1), (c, 1), (a, 1)], 8)
    assert spans == [(0, 2, 0, 2, 4), (2, 1, 8, 3, 0), (3, 1, 11, 3, 0)]
    assert pages == [*a, 0, *b, *c, *a]
    assert attended([(a, 1), (b, 1), (b, 1)], 2)[0] == [(0, 2, 0, 2, 4), (2, 1, 8, 4, 0)]
    assert attended([(a, 5), (b, 1), (b, 2)], 8)[0] == [(0, 5, 0, 3, 0), (5, 1, 3, 4, 0), (6, 2, 7, 4, 0)]
    assert [together(queries) for queries in (1, 2, 3, 4, 5, 7, 8, 16, 64, 128)] == [8, 4, 8, 2, 8, 8, 1, 1, 1, 1]


def test_a_full_cache_is_one_clear_line_and_leaves_the_sequences(tiny_model):
    with open_model(tiny_model) as gguf:
        engine = Engine(gguf, context=256)
    a, b = Sequence(), Sequence()
    engine.step([(a, PROMPT[:129], 1)], StopFlag())
    with pytest.raises(ContextFullError, match="256"):
        engine.step([(b, PROMPT[:1], 1)], StopFlag())
    assert (len(a.tokens), len(b.tokens), b.pages) == (129, 0, [])
    del a.tokens[100:]
    engine.step([(a, PROMPT[:1], 1)], StopFlag())
    engine.step([(b, PROMPT[:1], 1)], StopFlag())  # a has given back its second page


def test_a_cache_of_8_bits_takes_half_the_memory_and_gives_nearly_the_same(tiny_model):
    with open_model(tiny_model) as gguf:
        half, small = (Engine(gguf, cache_bits=bits) for bits in (16, 8))
        with pytest.raises(OptionError, match="cache_bits=4"):
            Engine(gguf, cache_bits=4)
    assert small.memory["cache"] < 0.65 * half.memory["cache"]  # heads of 16 numbers have one scale each
    expected, got = half.logits(PROMPT), small.logits(PROMPT)
    assert not np.array_equal(got, expected)
    assert (got - expected).std() < 0.02 * expected.std()


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_what_a_reply_without_numbers_left_in_the_cache_changes_no_later_one(bits, tmp_path):
    metadata, tensors = tiny_gguf.llama("F16", tied=False)
    embedded, _ = tensors["token_embd.weight"]
    embedded[7] = np.inf
    tensors["token_embd.weight"] = embedded, "F32"
    path = tmp_path / "model.gguf"
    path.write_bytes(tiny_gguf.gguf_bytes(metadata, tensors))
    with open_model(path) as gguf:
        engine = Engine(gguf, cache_bits=bits)
    expected = run(engine, PROMPT[:20])[0]
    with pytest.raises(ModelFileError, match="not a number"):
        run(engine, [*PROMPT[:10], *[7] * 100])
    assert run(engine, PROMPT[:20])[0] == expected


@pytest.mark.parametrize("name", ["gemma2", "gpt2", "phi3", "qwen2moe", "stablelm-12b"])
def test_a_single_weight_that_is_no_number_makes_all_logits_none(name, tmp_path, monkeypatch):
    monkeypatch.setenv("NBLLM_CACHE", "off")
    path = architectures.write(architectures.MODELS[name], tmp_path / "model.gguf")
    raw = path.read_bytes()
    with open_model(path) as gguf:
        tensors = list(gguf.tensors.values())
    sizes = {"F32": 4, "F16": 2, "Q8_0": 2, "Q4_0": 2}  # of the first number: a weight, or the scale of the first block
    for tensor in tensors:
        if tensor.name == "output.weight" or any(part in tensor.name for part in ("embd", "rope", "exps")):
            continue  # of which a logit, or a token, has only a part
        if tensor.name.startswith("blk.") and not tensor.name.startswith("blk.0."):
            continue  # the same once more
        size = sizes[tensor.block_type.name]
        path.write_bytes(raw[: tensor.offset] + b"\xff" * size + raw[tensor.offset + size :])
        with open_model(path) as gguf:
            logits, _ = Engine(gguf, context=8)._step([1, 2, 3], 3, StopFlag())
        assert not np.isfinite(logits).any(), tensor.name


def test_a_following_turn_reads_only_its_new_tokens(engine):
    reply, _ = run(engine, PROMPT)
    ids = PROMPT + reply + [5, 6, 7]
    _, done = run(engine, ids)
    # the last was never computed
    assert (done.stats.prompt_tokens, done.stats.reused_tokens) == (len(ids), len(ids) - 4)


def test_a_reply_ends_for_a_reason(engine):
    tokens, done = run(engine, PROMPT)
    assert done.finish_reason == "length"
    end = tokens[3]
    assert run(engine, PROMPT, end_ids={end})[0] == tokens[: tokens.index(end)]
    assert run(engine, PROMPT, end_ids={end})[1].finish_reason == "end"
    tokens, done = run(engine, PROMPT, Sampling(temperature=0, max_tokens=None))
    assert done.finish_reason == "context" and len(PROMPT) + len(tokens) == engine.context + 1


def test_a_stopped_step_leaves_what_was_there(engine):
    tokens, _ = run(engine, PROMPT)
    engine.tokens = []
    stop = StopFlag()
    stop.set()
    assert run(engine, PROMPT, stop=stop)[1].finish_reason == "stopped" and engine.tokens == []
    stop.clear()
    events = engine.generate(PROMPT, GREEDY, stop=stop)
    got = []
    for event in events:
        if isinstance(event, Token):
            got.append(event.id)
            if len(got) == 5:
                stop.set()
    assert isinstance(event, Done) and event.finish_reason == "stopped" and got == tokens[:5]
    stop.clear()
    assert run(engine, PROMPT, stop=stop)[0] == tokens


def test_a_flag_set_by_another_thread_stops_a_long_step(default_model):
    with open_model(default_model) as gguf:
        engine = Engine(gguf)
    stop = StopFlag()
    threading.Timer(0.05, stop.set).start()
    events = list(engine.generate(list(range(1000, 9000)), Sampling(max_tokens=1), stop=stop))
    assert events[-1].finish_reason == "stopped"
    assert len(engine.tokens) < 8000


def test_an_unfinished_generation_can_be_dropped(engine):
    tokens, _ = run(engine, PROMPT)
    events = engine.generate(PROMPT, GREEDY)
    for _ in range(4):
        next(events)
    events.close()
    assert run(engine, PROMPT)[0] == tokens


@pytest.mark.parametrize(
    ("ids", "error", "words"),
    [
        ([], OptionError, "empty"),
        ([1] * 256, ContextFullError, "256 tokens"),
        ([1, 100_000], OptionError, "100000"),
        ([-1], OptionError, "-1"),
    ],
)
def test_a_bad_prompt_is_refused_before_anything_is_computed(engine, ids, error, words):
    with pytest.raises(error, match=words):
        engine.generate(ids, GREEDY)
    assert engine.tokens == []


@pytest.mark.parametrize(
    "option", [{"context": 0}, {"context": 257}, {"context": True}, {"threads": 0}, {"threads": 1.5}]
)
def test_an_engine_out_of_range_is_refused(tiny_model, option):
    with open_model(tiny_model) as gguf, pytest.raises(OptionError, match=next(iter(option))):
        Engine(gguf, **option)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"general.architecture": "mamba"}, "mamba"),
        ({"llama.block_count": 3}, "blk.2"),
        ({"llama.block_count": 4_000_000_000}, "block_count"),
        ({"llama.attention.head_count": 0}, "head_count"),
        ({"llama.attention.head_count": 32}, "'llama.attention.key_length' is 2, by what else the file says,"),
        ({"llama.attention.head_count_kv": 3}, r"heads of 4 \(at byte \d+\) over 3"),
        ({"llama.embedding_length": 128}, "attn_norm.weight"),
        ({"llama.rope.scaling.type": "su"}, "su"),
        ({"llama.context_length": "long"}, "context_length"),
        ({"llama.logit_scale": 0.5}, "logit_scale"),
    ],
)
def test_a_model_that_cannot_be_run_is_refused_with_what_is_wrong(changed, words, tmp_path):
    from tiny_gguf import write_llama

    path = write_llama(tmp_path / "bad.gguf", metadata=changed)
    with open_model(path) as gguf, pytest.raises(ModelFileError, match=words) as caught:
        Engine(gguf)
    assert "\n" not in str(caught.value)
