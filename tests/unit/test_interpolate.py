"""`{name}` in a prompt: only the user's own names, once, and nothing is evaluated."""

import pytest

from nbllm.errors import NbLLMError
from nbllm.jupyter.interpolate import interpolate

VARIABLES = {"x": 3, "y": "{x} {0} $HOME", "größe": 1.5, "empty": ""}
CASES = {
    "{x}": ("3", ["x"]),
    "{y}": ("{x} {0} $HOME", ["y"]),
    "{x}{x} {y}": ("33 {x} {0} $HOME", ["x", "y"]),
    "{größe}": ("1.5", ["größe"]),
    "[{empty}]": ("[]", ["empty"]),
    "{{x}}": ("{3}", ["x"]),
    "{ x } {x.real} {x!r} {x:>10} {x + 1} {0} {} {z} {'x': 1} {x": (
        "{ x } {x.real} {x!r} {x:>10} {x + 1} {0} {} {z} {'x': 1} {x", []),
    "": ("", []),
}  # fmt: skip


@pytest.mark.parametrize("text", CASES)
def test_becomes(text):
    assert interpolate(text, VARIABLES) == CASES[text]


def test_a_value_without_text_is_named():
    class Bad:
        def __str__(self):
            raise ValueError("no")

    with pytest.raises(NbLLMError, match=r"\{bad\} cannot be put into the prompt: str\(bad\) raised ValueError\('no'\)"):
        interpolate("{bad}", {"bad": Bad()})
