"""What is kept of the errors of the user's cells, in a real IPython shell."""

from types import SimpleNamespace

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from nbllm.errors import NbLLMError
from nbllm.jupyter.failures import Failures


@pytest.fixture
def shell():
    yield InteractiveShell.instance()
    InteractiveShell.clear_instance()


@pytest.fixture
def run(shell):
    """Runs a cell, and returns what is known of failures then."""
    failures = Failures()
    shell.events.register("post_run_cell", failures.record)

    def run(cell, **how):
        with capture_output():
            shell.run_cell(cell, store_history=True, **how)
        return failures

    return run


def test_a_failed_cell_is_kept_with_its_source_and_its_traceback(run):
    assert run("1 + 1").last is None
    failures = run("def f(x):\n    return 1 / x\nf(0)\n")
    assert failures.last.source == "def f(x):\n    return 1 / x\nf(0)\n"
    assert (
        failures.last.traceback
        == failures.tracebacks[2]
        == (
            'Traceback (most recent call last):\n  File "cell", line 3, in <module>\n    f(0)\n'
            '  File "cell", line 2, in f\n    return 1 / x\nZeroDivisionError: division by zero'
        )
    )
    assert run("1").last is failures.last


def test_what_does_not_compile_counts(run):
    assert run("x = (\n").last.traceback.splitlines()[-1].startswith("SyntaxError: ")


def test_nbllm_s_own_refusals_and_the_user_s_own_ends_do_not(run, shell):
    shell.user_ns["error"] = NbLLMError("no")
    for cell in ("raise error", "raise KeyboardInterrupt"):
        assert run(cell).last is None and run("1").tracebacks == {}


def test_an_error_that_has_no_text_has_its_name():
    class Odd(Exception):
        def __str__(self):
            raise self

    failures, ran = Failures(), SimpleNamespace(raw_cell="odd")
    failures.record(SimpleNamespace(error_before_exec=None, error_in_exec=Odd(), execution_count=1, info=ran))
    assert failures.last.traceback.endswith("Odd: <exception str() failed>")


def test_an_error_whose_own_description_fails_is_told_in_short(run):
    failures = run("class E(Exception):\n    def _repr_llm_(self):\n        raise KeyError('q')\nraise E('x')")
    assert failures.last.traceback == "E: x (there is no traceback, for to describe it raised KeyError: 'q')"


def test_the_oldest_are_forgotten(run, monkeypatch):
    monkeypatch.setattr("nbllm.jupyter.failures.KEPT", 2)
    for _ in range(4):
        failures = run("1/0")
    assert list(failures.tracebacks) == [3, 4]


def test_the_question_quotes_both_in_fences_that_hold(run):
    question = run("s = '```'; 1/0").last.question()
    assert "````python\ns = '```'; 1/0\n````" in question and "ZeroDivisionError: division by zero\n```" in question
