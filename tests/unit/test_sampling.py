"""Sampling: llama.cpp's numbers for the filters we share, determinism, and what is refused."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from nbllm.errors import ModelFileError, OptionError
from nbllm.runtime.program import PEAK
from nbllm.runtime.sampling import Sampler, Sampling, likeliest, min_p, penalise, probabilities, top_k, top_p

CASES = json.loads((Path(__file__).parents[1] / "data" / "sampling.json").read_text())
VOCAB = 49152


def peaks(logits):
    """float32 (blocks,): the largest of each block of logits, as the kernel tells them."""
    blocks = np.pad(logits, (0, -logits.size % PEAK), constant_values=-1e30).reshape(-1, PEAK)
    return np.where(np.isfinite(blocks).all(1), blocks.max(1), np.nan).astype(np.float32)


def pick(sampler, logits, recent=()):
    return sampler.pick(logits, peaks(logits), recent)


def log(values):
    with np.errstate(divide="ignore"):
        return np.log(np.asarray(values, np.float32))


def kept(case, filter, argument):
    """What a filter over a falling order leaves, as probabilities by id."""
    logits = log(case["probabilities"])
    ids = top_k(logits, peaks(logits), 0)
    ids = ids[: filter(logits[ids], argument)]
    return dict(zip(ids.tolist(), probabilities(logits[ids]), strict=True))


def expected(case):
    """llama.cpp lists some survivors in the order of the ids and some falling; these inputs all rise with the id."""
    values = sorted(case["expected"])
    first = len(case["probabilities"]) - len(values)
    return {first + i: pytest.approx(value, abs=1e-5) for i, value in enumerate(values)}


@pytest.mark.parametrize("case", CASES["top_k"], ids=str)
def test_top_k_has_llama_cpp_numbers(case):
    ids = top_k(log(case["probabilities"]), peaks(log(case["probabilities"])), case["value"])
    assert dict(zip(ids.tolist(), probabilities(log(case["probabilities"])[ids]), strict=True)) == expected(case)


@pytest.mark.parametrize("case", CASES["top_p"], ids=str)
def test_top_p_has_llama_cpp_numbers(case):
    assert kept(case, top_p, case["value"]) == expected(case)


@pytest.mark.parametrize("case", CASES["min_p"], ids=str)
def test_min_p_has_llama_cpp_numbers(case):
    assert kept(case, min_p, case["value"]) == expected(case)


@pytest.mark.parametrize("case", CASES["temp"], ids=str)
def test_temperature_has_llama_cpp_numbers(case):
    logits = log(case["probabilities"])
    if case["value"] == 0:  # greedy: the whole probability is on one token
        picked = pick(Sampler(Sampling(temperature=0), logits.size), logits)
        assert [float(i == picked) for i in range(logits.size)] == case["expected"]
    else:
        ids = top_k(logits, peaks(logits), 0)
        found = dict(zip(ids.tolist(), probabilities(logits[ids], case["value"]), strict=True))
        assert found == expected(case)


@pytest.mark.parametrize("case", CASES["penalty"], ids=str)
def test_repeat_penalty_has_llama_cpp_numbers(case):
    logits = log(case["probabilities"])
    penalise(logits, case["recent"], case["value"])
    weights = np.exp(logits)
    assert weights / weights.sum() == pytest.approx(case["expected"], abs=1e-5)


@pytest.mark.parametrize("case", CASES["queue"], ids=str)
def test_filters_in_any_order_keep_what_llama_cpp_keeps(case):
    """Over probabilities proportional to the id, the survivors can be counted by hand, as llama.cpp's test does."""
    n, lowest = case["vocab"], 0
    logits = log(np.arange(n))
    ids = top_k(logits, peaks(logits), 0)
    for step in case["order"]:
        if step == "k":
            ids = ids[: case["top_k"]]
            lowest = max(lowest, n - case["top_k"])
        elif step == "p":
            ids = ids[: top_p(logits[ids], case["top_p"])]
            total = n * (n - 1) // 2 - lowest * (lowest - 1) // 2
            target, lowest, mass = math.ceil(np.float32(case["top_p"]) * np.float32(total)), n, 0
            while mass < target or lowest == n:
                lowest -= 1
                mass += lowest
            if case["top_p"] == 1:  # all are kept, the impossible token 0 too
                lowest = 0
        else:
            ids = ids[: min_p(logits[ids], case["min_p"])]
            lowest = min(max(math.floor(case["min_p"] * n), 1, lowest), n - 1)
        assert (ids[0], ids[-1], ids.size) == (n - 1, lowest, n - lowest)


def random_logits(seed):
    return np.random.default_rng(seed).standard_normal(VOCAB).astype(np.float32) * 3  # (vocab,)


@pytest.mark.parametrize("k", [1, 2, 40, VOCAB - 1, VOCAB, 0])
def test_top_k_equals_a_full_stable_sort_also_with_ties(k):
    logits = np.round(random_logits(1))  # a few dozen distinct values: ties at every border
    assert np.array_equal(top_k(logits, peaks(logits), k), np.argsort(-logits, kind="stable")[: k or None])


def test_a_penalty_also_lowers_the_peaks():
    logits = random_logits(4)
    logits[:PEAK] += 100  # one block has all of the largest
    recent = list(range(PEAK - 1))
    expected = logits.copy()
    penalise(expected, recent, 100.0)
    options = Sampling(repeat_penalty=100, repeat_window=PEAK)
    likely = [options.updated(temperature=1, top_k=2, seed=seed) for seed in range(50)]
    picked = [pick(Sampler(each, VOCAB), logits, recent) for each in likely]
    assert picked == [PEAK - 1] * 50  # by far the likelier of the two
    greedy = Sampler(options.updated(temperature=0), VOCAB)
    assert pick(greedy, logits, [*recent, PEAK - 1]) == expected[PEAK:].argmax() + PEAK


def test_temperature_0_takes_the_largest_logit_and_the_smaller_id_of_two():
    logits = np.zeros(10, np.float32)
    logits[[4, 7]] = 2
    assert pick(Sampler(Sampling(temperature=0), 10), logits) == 4
    assert pick(Sampler(Sampling(temperature=0, repeat_penalty=1.5), 10), logits, [4]) == 7


def test_the_penalty_sees_only_its_window_and_leaves_the_callers_logits_alone():
    logits = np.array([3, 2, 1], np.float32)
    before = logits.copy()
    sampler = Sampler(Sampling(temperature=0, repeat_penalty=2, repeat_window=2), 3)
    assert pick(sampler, logits, [0, 2, 2]) == 0
    assert pick(sampler, logits, [2, 0, 2]) == 1
    assert pick(Sampler(Sampling(temperature=0, repeat_penalty=2, repeat_window=0), 3), logits, [0, 0]) == 0
    assert np.array_equal(logits, before)


def draws(sampler, count=200):
    recent = []
    for i in range(count):
        recent.append(pick(sampler, random_logits(i), recent))
    return recent


def test_the_same_seed_draws_the_same_tokens_and_another_seed_does_not():
    options = Sampling(temperature=2.0, seed=7)
    assert draws(Sampler(options, VOCAB)) == draws(Sampler(options, VOCAB))
    assert draws(Sampler(options, VOCAB)) != draws(Sampler(options.updated(seed=8), VOCAB))


def test_without_a_seed_the_drawn_one_is_told_and_repeats_the_draw():
    first = Sampler(Sampling(temperature=2.0), VOCAB)
    again = Sampler(Sampling(temperature=2.0, seed=first.seed), VOCAB)
    assert draws(first) == draws(again)


def test_the_stream_of_a_seed_never_changes():
    """Recorded once: a change here changes what every saved seed means."""
    flat = np.zeros(1000, np.float32)
    sampler = Sampler(Sampling(temperature=1, top_k=0, top_p=1, min_p=0, repeat_penalty=1, seed=42), 1000)
    assert [pick(sampler, flat) for _ in range(5)] == [773, 438, 858, 697, 94]


def test_draws_follow_the_probabilities():
    logits = log([0.1, 0.2, 0.3, 0.4])
    sampler = Sampler(Sampling(temperature=1, top_k=0, top_p=1, min_p=0, repeat_penalty=1, seed=1), 4)
    counts = np.bincount([pick(sampler, logits) for _ in range(20000)], minlength=4)
    assert counts / 20000 == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.015)  # about 4 standard deviations


def test_a_temperature_next_to_0_is_greedy():
    logits = random_logits(3)
    assert pick(Sampler(Sampling(temperature=1e-320, repeat_penalty=1, seed=1), VOCAB), logits) == logits.argmax()


@pytest.mark.parametrize("temperature", [1e-320, 1e-3, 0.05, 0.7, 100])
@pytest.mark.parametrize("options", [
    {}, {"top_k": 0}, {"top_k": 0, "top_p": 1, "min_p": 0}, {"repeat_penalty": 0.01}, {"repeat_penalty": 100},
], ids=str)  # fmt: skip
def test_the_users_own_settings_for_errors_of_numpy_change_nothing(temperature, options):
    logits = random_logits(3) * np.float32(100)  # (vocab,)
    logits[1:4] = 1e-39, 3e38, 0  # the penalty takes them out of range

    def drawn():
        sampler = Sampler(Sampling(temperature=temperature, seed=1, **options), VOCAB)
        ids = [pick(sampler, logits, recent=[1, 2, 3]) for _ in range(5)]
        return ids, likeliest(logits, peaks(logits), 5, VOCAB)

    expected = drawn()
    with np.errstate(all="raise"):
        assert drawn() == expected


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("temperature", [0, 1])
def test_a_logit_that_is_not_finite_is_one_clear_line(bad, temperature):
    logits = np.zeros(100, np.float32)
    logits[50] = bad
    with pytest.raises(ModelFileError, match="not a number") as error:
        pick(Sampler(Sampling(temperature=temperature), 100), logits)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "value"), [
    ("temperature", -0.1), ("temperature", math.nan), ("temperature", math.inf), ("temperature", "hot"),
    ("temperature", True), ("temperature", None), ("top_k", -1), ("top_k", 1.5), ("top_k", None), ("top_p", 1.01),
    ("top_p", -0.01), ("min_p", 2), ("repeat_penalty", 0), ("repeat_window", -1), ("seed", -1), ("seed", 2**64),
    ("seed", 1.0), ("max_tokens", 0), ("max_tokens", "many"), ("stop", 3), ("stop", [""]), ("stop", [1]),
])
def test_a_value_out_of_range_is_refused_by_name(name, value):
    with pytest.raises(OptionError) as error:
        Sampling(**{name: value})
    assert f"{name}={value!r}" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_option_is_named_with_those_there_are():
    with pytest.raises(OptionError, match="'temprature'.*temperature.*stop"):
        Sampling().updated(temprature=1)


def test_values_become_plain_python_ones():
    options = Sampling(temperature=np.float32(0.5), top_k=np.int64(3), seed=np.uint64(2**64 - 1), stop="end")
    assert (options.temperature, options.top_k, options.seed, options.stop) == (0.5, 3, 2**64 - 1, ("end",))
    assert [type(v) for v in (options.temperature, options.top_k, options.seed)] == [float, int, int]
    assert Sampling(seed=None, max_tokens=None, stop=["a", "b"]).stop == ("a", "b")
