"""One thread at a time computes with a model, and none after its end, or Python's."""

import copy
import pickle
import subprocess
import sys
import threading
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

import nbllm
from nbllm.errors import NbLLMError
from nbllm.jupyter.config import NbLLM
from nbllm.jupyter.session import Session
from nbllm.runtime.events import StopFlag
from nbllm.text import Text

LONG = 30  # seconds; bounds a wait that should never be that long


@pytest.fixture
def model(tiny_model):
    with nbllm.load(tiny_model, threads=2) as model:
        yield model


def text(events):
    return "".join(event.text for event in events if isinstance(event, Text))


class Other(threading.Thread):
    """Another thread; `result` is what the function gave or raised."""

    def __init__(self, function):
        super().__init__(daemon=True)
        self._function = function

    def run(self):
        try:
            self.result = self._function()
        except NbLLMError as error:
            self.result = error


@contextmanager
def computing(engine, function):
    """Within, another thread is in the first step that the function comes to. Gives the thread, and what lets it go on
    with the step."""
    inside, go, compiled = threading.Event(), threading.Event(), engine._kernel.step

    def step(*given):
        inside.set()
        assert go.wait(LONG)
        return compiled(*given)

    engine._kernel = SimpleNamespace(step=step)
    other = Other(function)
    other.start()
    assert inside.wait(LONG)
    try:
        yield other, go
    finally:
        go.set()
        other.join(LONG)
    assert not other.is_alive()


def test_a_second_thread_is_refused_at_once_and_the_first_goes_on(model):
    expected = text(model.generate("hello", seed=1, max_tokens=5))
    batch, events = model.batch(), model.generate("another", seed=1)
    batch.add(1, [1, 2, 3], nbllm.Chat(model).sampling)
    uses = (
        lambda: model.logits([1, 2]), lambda: model.generate("x"), lambda: list(events), lambda: model.batch(),
        lambda: batch.step(StopFlag()), lambda: nbllm.Chat(model)("x"), lambda: nbllm.map(["x"], model, progress=False),
    )  # fmt: skip
    with computing(model.engine, lambda: text(model.generate("hello", seed=1, max_tokens=5))) as (first, go):
        for use in uses:
            with pytest.raises(NbLLMError, match="in use by another thread"):
                use()
        assert len(batch) == 1
    assert first.result == expected
    assert text(model.generate("hello", seed=1, max_tokens=5)) == expected


def test_while_many_are_answered_together_another_thread_is_refused_too(model):
    batch = model.batch()
    batch.add(1, [1, 2, 3], nbllm.Chat(model).sampling)
    with computing(batch._engine, lambda: batch.step(StopFlag())) as (first, go):
        for use in (lambda: model.logits([1, 2]), lambda: batch.step(StopFlag())):
            with pytest.raises(NbLLMError, match="in use by another thread"):
                use()
    assert first.result and model.logits([1, 2]).shape[0] == 2


def test_a_reply_whose_tokens_another_has_gone_on_with_ends_in_one_line(model):
    expected = text(model.generate("hello", seed=1, max_tokens=5))
    for other in (lambda: list(model.generate("hello", seed=2, max_tokens=5)), lambda: model.logits([1, 2])):
        events = model.generate("hello", seed=1, max_tokens=5)
        for _ in range(3):
            next(events)
        other()
        with pytest.raises(NbLLMError, match="another reply of this model was begun"):
            list(events)
    first = model.generate("hello", seed=3, max_tokens=5)
    next(first)
    second = model.generate("hello", seed=1, max_tokens=5)
    first.close()
    assert text(second) == expected


def test_a_model_that_is_closed_while_it_writes_stops_and_says_so(model):
    engine, flag = model.engine, StopFlag()
    with computing(engine, lambda: list(model.generate("hello", flag, max_tokens=5))) as (other, go):
        model.close()
        assert flag.is_set() and hasattr(engine, "_f")  # the step reads and writes it
    assert isinstance(other.result, NbLLMError) and "was closed" in str(other.result) and not hasattr(engine, "_f")


def test_a_model_that_is_closed_between_two_steps_says_so(model):
    events = model.generate("hello", max_tokens=5)
    next(events)
    model.close()
    with pytest.raises(NbLLMError, match="was closed"):
        list(events)


def test_a_model_that_is_closed_while_it_answers_many_ends_that_and_what_is_there_is_kept(model):
    rows = nbllm.Map(range(200), model, seed=5, max_tokens=9)
    steps = rows.steps(nbllm.Chat(model), StopFlag())
    next(steps)
    model.close()
    with pytest.raises(NbLLMError, match="the model tiny was closed"):
        list(steps)
    assert 0 < rows.progress.done < 200 and rows.progress.failed == 0


def test_closing_a_model_sets_no_flag_of_a_reply_that_has_ended(model):
    flag = StopFlag()
    list(model.generate("hello", flag, max_tokens=1))
    model.close()
    assert not flag.is_set()


def test_an_error_in_a_step_gives_back_the_turn(model, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(model.engine, "_embed", lambda ids: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            model.logits([1, 2])
    assert model.logits([1, 2]).shape[0] == 2


# A thread that comes back from compiled code while Python ends. Modules are cleared last, and with them what makes the
# step end now, as it might by itself.
ENDING = """
import sys, threading, time, types
import nbllm
from nbllm.runtime.events import StopFlag

class Last:
    def __init__(self, flag, sleep):
        self.flag, self.sleep = flag, sleep
    def __del__(self):
        self.flag.set()
        self.sleep(0.3)

def ask():
    model.engine.step([(model.engine.sequence, list(range(1000, 1512)), 1)], flag)  # half a second, unless stopped

model, flag = nbllm.load(sys.argv[1]), StopFlag()
inside, kernel = threading.Event(), model.engine._kernel
sys.modules["last"] = types.ModuleType("last")
sys.modules["last"].one = Last(flag, time.sleep)
compiled = kernel.step

class Kernel:
    def step(self, *given):
        inside.set()
        return compiled(*given)

model.engine._kernel = Kernel()
threading.Thread(target=ask, daemon=True).start()
inside.wait()
"""


def run(program, path):
    return subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=100)


def test_python_ends_well_while_a_thread_computes(default_model):
    ran = run(ENDING, default_model)
    assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr


AFTER = """
import atexit, sys

def after():
    try:
        model.logits([1, 2, 3])
    except nbllm.errors.NbLLMError as error:
        print(error)

atexit.register(after)  # which is called after what is registered later
import nbllm
model = nbllm.load(sys.argv[1])
"""


def test_nothing_computes_any_more_when_python_ends(tiny_model):
    ran = run(AFTER, tiny_model)
    assert ran.returncode == 0 and "Python is ending" in ran.stdout, ran.stderr


# ---- copies


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickle.dumps])
def test_what_is_there_once_is_not_copied_and_says_what_to_do(model, copied):
    session = Session(NbLLM())
    try:
        for once in (model, nbllm.Chat(model), nbllm.Map(["a"], model), session):
            with pytest.raises(NbLLMError, match=f"a {type(once).__name__} cannot be copied .*: {once.instead}"):
                copied(once)
    finally:
        session.close()
