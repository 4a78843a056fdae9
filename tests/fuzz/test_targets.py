"""What `make fuzz-guided` searches with works, and finds nothing at first; the search itself is no test."""

import random

import pytest
from fuzz.guided import COVERED
from fuzz.outcome import outcome
from fuzz.targets import TARGETS

from nbllm.chat import sandbox
from nbllm.runtime import packed_cache


@pytest.fixture
def use(tmp_path, monkeypatch):
    """What comes of an input of a target."""
    for module, name in ((sandbox, "SECONDS"), (packed_cache, "folder")):  # which targets change
        monkeypatch.setattr(module, name, getattr(module, name))
    return lambda target, raw: outcome(target.use, tmp_path, raw)


@pytest.mark.parametrize("name", COVERED)
def test_what_a_search_begins_with_runs_or_is_refused(use, tmp_path, name):
    target = TARGETS[name]
    told = [use(target, raw) for raw in target.seeds(tmp_path)]
    assert [line for line in told if line.startswith("wrong")] == []
    assert any(line.startswith("ran") for line in told)


@pytest.mark.parametrize("name", sorted(COVERED.keys() - {"model"}))  # which only a process of its own may try
def test_what_is_damaged_differs_and_is_at_most_refused(use, tmp_path, name):
    target, draw = TARGETS[name], random.Random(1)
    seeds = target.seeds(tmp_path)
    damaged = [target.damage(draw, draw.choice(seeds), lambda raw: raw[: len(raw) // 2]) for _ in range(40)]
    assert len(set(damaged) - set(seeds)) > 9
    assert [line for line in (use(target, raw) for raw in damaged) if line.startswith("wrong")] == []


def test_every_target_is_one_of_the_commands():
    assert COVERED.keys() == TARGETS.keys()
