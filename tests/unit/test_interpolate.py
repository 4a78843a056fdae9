"""`{name}` in a prompt and `--with`: only what is there, once, and nothing is evaluated."""

from types import SimpleNamespace

import pytest
from IPython.core.interactiveshell import InteractiveShell

from nbllm.errors import NbLLMError, OptionError
from nbllm.jupyter.interpolate import Names, asked, attached, interpolate, names, told
from nbllm.jupyter.magics import ChatMagics


class Thing:
    size = 5

    @property
    def broken(self):
        raise RuntimeError("no")


class Bad:
    def __str__(self):
        raise ValueError("no")


class Wordless(Exception):
    def __str__(self):
        raise self

    __repr__ = __str__


class Raises:
    def __init__(self, error):
        self.error = error

    def __str__(self):
        raise self.error

    @property
    def size(self):
        raise self.error


VARIABLES = {"x": 3, "y": "{x} {0} $HOME", "größe": 1.5, "empty": "", "thing": Thing(), "bad": Bad(), "big": [1] * 1000}
NUMBERED = {"In": ["", "1 + 1", "y\n"], "Out": {1: 2}, "Err": {7: "ValueError: no"}}
NAMES = Names(VARIABLES, NUMBERED)
CASES = {
    "{x}": ("3", {"x": True}),
    "{y}": ("{x} {0} $HOME", {"y": True}),
    "{x}{x} {y}": ("33 {x} {0} $HOME", {"x": True, "y": True}),
    "{größe}": ("1.5", {"größe": True}),
    "[{empty}]": ("[]", {"empty": True}),
    "{thing.size} {x.real.imag} {y.upper.nothing}": (
        "5 0 {y.upper.nothing}",
        {"thing.size": True, "x.real.imag": True},
    ),
    "{In[1]} = {Out[1]}; {Err[7]}": ("1 + 1 = 2; ValueError: no", {"In[1]": True, "Out[1]": True, "Err[7]": True}),
    "": ("", {}),
}  # fmt: skip
AS_WRITTEN = [
    "{ x } {x!r} {x:>10} {x + 1} {0} {} {z} {'x': 1} {x",
    "{{x}} {{ x }} ${x} {x}} {z.size} {x.nothing} {x.__class__} {x.} {.x}",
    "{In} {In[9]} {In[-1]} {Out[9]} {Err[1]} {in[1]} {In[x]} {In[99999999999]} {x[0]}",
    'print(f"{x} of {y}"), rf\'{x}\', F"""a\n{x}""", f"\\"{x}"',
    '{"x": {"y": [1, {}]}} {x, y} {"x"} {x: y}',
    r"\frac{x}{y} + \sqrt{\frac{x}{y}} + a_{x} + b^{y}",
]


@pytest.mark.parametrize("text", CASES)
def test_becomes(text):
    assert interpolate(text, NAMES) == CASES[text]


@pytest.mark.parametrize("text", AS_WRITTEN)
def test_stays_as_written(text):
    assert interpolate(text, NAMES) == (text, {})


def test_a_prefix_is_not_an_f_string_when_it_ends_a_word():
    assert interpolate("""leaf "{x}" if '{x}'""", NAMES)[0] == """leaf "3" if '3'"""


def test_what_is_long_is_described_within_the_budget_and_told_apart():
    text, used = interpolate("{big} {x}", NAMES, budget=60)
    assert text.startswith("list of 1,000 items: [1, 1, 1") and text.endswith(" 3") and len(text) < 120
    assert used == {"big": False, "x": True}


def test_objects_stand_above_the_prompt_in_fences_that_hold():
    text, used = attached(["x", "In[1]", "thing.size"], NAMES)
    assert text == "`x`:\n```\n3\n```\n\n`In[1]`:\n```\n1 + 1\n```\n\n`thing.size`:\n```\n5\n```\n\n"
    assert used == {"x": True, "In[1]": True, "thing.size": True}
    assert attached(["c"], Names({"c": "````\n"}))[0] == "`c`:\n`````\n````\n\n`````\n\n"
    assert attached([], NAMES) == ("", {})


@pytest.mark.parametrize("reference", ["z", "x.nothing", "In[9]", "x + 1", ""])
def test_an_object_that_is_not_there_is_named(reference):
    with pytest.raises(OptionError) as error:
        attached([reference], NAMES)
    assert str(error.value) == f"--with: there is no {reference!r}; name variables, or In[3], Out[3], Err[3]"


@pytest.mark.parametrize(("reference", "line"), {
    "bad": "{bad} cannot be put into the prompt: its description raised ValueError: no",
    "thing.broken": "{thing.broken} cannot be looked up: RuntimeError: no",
}.items())  # fmt: skip
def test_what_an_object_raises_is_one_line(reference, line):
    for way in (lambda: interpolate(f"{{{reference}}}", NAMES), lambda: attached([reference], NAMES)):
        with pytest.raises(NbLLMError) as error:
            way()
        assert str(error.value) == line
    assert told(reference, NAMES) == line


@pytest.mark.parametrize(("error", "line"), [
    (Wordless(), "Wordless"), (SystemExit(3), "SystemExit: 3"), (GeneratorExit(), "GeneratorExit"),
    (ValueError("x " * 1_000_000), f"ValueError: {'x ' * 100}..."),
], ids=lambda value: "")  # fmt: skip
def test_whatever_an_object_raises_is_one_short_line(error, line):
    for reference in ("it", "it.size"):
        with pytest.raises(NbLLMError) as told:
            interpolate(f"{{{reference}}}", Names({"it": Raises(error)}))
        assert str(told.value).endswith(f": {line}" if "." in reference else f" raised {line}")


def test_rows_and_schemas_whose_attribute_raises_are_one_line():
    shell = InteractiveShell()
    magics = ChatMagics(shell)
    shell.magics_manager.register(magics)
    shell.user_ns["it"] = Raises(SystemExit(3))
    for line in ("--each it.size", "--schema it.size", "--schema list[it.size]"):
        with pytest.raises(NbLLMError, match="{it.size} cannot be looked up: SystemExit: 3"):
            magics.ask(line, "prompt")


def test_an_interrupt_while_an_object_is_described_is_one():
    with pytest.raises(KeyboardInterrupt):
        interpolate("{it}", Names({"it": Raises(KeyboardInterrupt())}))


def test_without_out_nothing_of_it_is_named():
    magics = SimpleNamespace(registry={"ChatMagics": SimpleNamespace(failures=SimpleNamespace(tracebacks={}))})
    history = SimpleNamespace(input_hist_raw=["", "x"])
    shell = SimpleNamespace(user_ns={"x": 3}, user_ns_hidden={}, history_manager=history, magics_manager=magics)
    assert interpolate("{x} {Out[1]}", names(shell))[0] == "3 {Out[1]}"


@pytest.mark.parametrize("question", ["What is it?", "`x`:\nwhat?", "```\ncode\n```", ""])
def test_a_prompt_is_told_from_what_was_attached_to_it(question):
    above, _ = attached(["x", "Err[7]", "fences"], Names({"x": 3, "fences": "````\na\n```"}, NUMBERED))
    assert asked(above + question) == question == asked(question)


def test_a_cell_may_make_variables_while_they_are_looked_at():
    class Hidden:
        def __contains__(self, name):
            shell.user_ns[f"made_when_{name}_was_seen"] = 1  # by another thread
            return False

    history = SimpleNamespace(input_hist_raw=["", "x"])
    magics = SimpleNamespace(registry={"ChatMagics": SimpleNamespace(failures=SimpleNamespace(tracebacks={}))})
    shell = SimpleNamespace(
        user_ns={"x": 3, "Out": {}}, user_ns_hidden=Hidden(), history_manager=history, magics_manager=magics
    )
    assert names(shell)["x"] == 3
