"""Replies that are written together: each the one that it would be alone, in a cache that they share."""

import numpy as np
import pytest

from nbllm.errors import ContextFullError, OptionError
from nbllm.formats.open import open_model
from nbllm.runtime.batch import Batch
from nbllm.runtime.cache import Cache, Sequence
from nbllm.runtime.engine import Engine
from nbllm.runtime.events import Done, StopFlag, Token
from nbllm.runtime.options import Sampling
from nbllm.runtime.program import PAGE, Heads

RANDOM = np.random.default_rng(11)
COMMON = [int(id) for id in RANDOM.integers(3, 300, 150)]
PROMPTS = [
    COMMON[: int(RANDOM.integers(151))] + [int(id) for id in RANDOM.integers(3, 300, RANDOM.integers(1, 60))]
    for _ in range(25)
]


def sampling(number):
    return Sampling(temperature=number % 3 / 2, seed=number, max_tokens=1 + number % 17)


@pytest.fixture
def engine(tiny_model):
    with open_model(tiny_model) as gguf:
        return Engine(gguf, threads=2)


def alone(engine, ids, options, end_ids=frozenset()):
    engine.tokens = []
    return [event.id for event in engine.generate(ids, options, end_ids) if isinstance(event, Token)]


def together(batch, stop=None):
    """key -> the tokens, and the last event."""
    written = {}
    while len(batch):
        for key, event in batch.step(stop or StopFlag()):
            tokens, _ = written.setdefault(key, ([], None))
            if isinstance(event, Token):
                tokens.append(event.id)
            elif isinstance(event, Done | Exception):
                written[key] = tokens, event
    return written


@pytest.mark.parametrize(("width", "room"), [(32, 1 << 13), (3, 1 << 13), (32, 640)])
def test_a_reply_is_the_one_that_it_would_be_alone(engine, width, room):
    expected = [alone(engine, ids, sampling(number), {5, 6}) for number, ids in enumerate(PROMPTS)]
    batch = Batch(engine.twin(room), width)
    for number, ids in enumerate(PROMPTS):
        batch.add(number, ids, sampling(number), {5, 6})
    written = together(batch)
    assert [written[number][0] for number in range(len(PROMPTS))] == expected
    assert {written[number][1].finish_reason for number in written} <= {"end", "length"}


def test_what_prompts_have_in_common_is_read_once(engine, monkeypatch):
    twin = engine.twin(1 << 13)
    batch, computed, step = Batch(twin), [], twin.compute
    monkeypatch.setattr(
        twin, "compute", lambda parts, stop: computed.extend(len(ids) for _, ids, _ in parts) or step(parts, stop)
    )
    for number in range(20):
        batch.add(number, [*COMMON, number, 7], Sampling(max_tokens=1))
    done = together(batch)
    assert sum(computed) == len(COMMON) + 20 * 2
    assert [done[number][1].stats.reused_tokens for number in range(20)] == [0] + [len(COMMON)] * 19


def test_a_stopped_step_can_be_computed_again(engine):
    batch, stop = Batch(engine.twin(1 << 12)), StopFlag()
    for number, ids in enumerate(PROMPTS[:4]):
        batch.add(number, ids, sampling(number))
    stop.set()
    assert batch.step(stop) is None
    stop.clear()
    written = together(batch, stop)
    assert [written[n][0] for n in range(4)] == [alone(engine, ids, sampling(n)) for n, ids in enumerate(PROMPTS[:4])]


def test_a_reply_can_be_ended_by_its_reader(engine):
    batch = Batch(engine.twin(1 << 12))
    batch.add("a", PROMPTS[0], Sampling(max_tokens=None))
    batch.add("b", PROMPTS[1], sampling(16))
    while not any(isinstance(event, Token) for _, event in batch.step(StopFlag())):
        pass
    assert batch.end("a", "stop").finish_reason == "stop"
    assert list(together(batch)) == ["b"]


def test_what_does_not_fit_is_refused_when_it_is_asked_for(engine):
    batch = Batch(engine.twin(engine.context))
    with pytest.raises(ContextFullError):
        batch.add(0, [3] * engine.context, Sampling())
    with pytest.raises(OptionError):
        batch.add(0, [], Sampling())
    assert len(batch) == 0 and batch.step(StopFlag()) == []


def test_a_page_that_two_sequences_have_is_copied_when_one_of_them_writes():
    cache = Cache(2, Heads(4, 2, 16, 16), 6 * PAGE)
    first = Sequence()
    cache.fit(first, PAGE + 10)
    first.tokens = [1] * (PAGE + 10)
    for array in cache.arrays:
        array[:] = np.random.default_rng(1).integers(0, 100, array.size).astype(array.dtype)
    second = cache.fork(first, PAGE + 5)
    assert second.tokens == first.tokens[: PAGE + 5] and second.pages == first.pages and cache.free == 4
    cache.fit(second, 1)
    assert second.pages[0] == first.pages[0] and second.pages[1] != first.pages[1] and cache.free == 3
    keys = cache.arrays[0].reshape(2, cache.pages, -1)
    assert np.array_equal(keys[:, second.pages[1]], keys[:, first.pages[1]])
    cache.fit(first, 1)  # the last one that has a page writes to it itself
    assert cache.free == 3
    cache.release(first)
    assert cache.free == 4 and second.pages[0] not in cache._free
    cache.release(second)
    assert cache.free == 6
