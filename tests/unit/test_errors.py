"""Messages are one line, whatever they are about."""

import numpy as np
import pytest

from nbllm.errors import NbLLMError, OptionError, Stopped, quoted


class Hostile:
    def __repr__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize("value, text", [
    (5, "5"), ("a\nb", r"'a\nb'"), (np.eye(2), "array([[1., 0.], [0., 1.]])"), (Hostile(), "<Hostile>"),
    (10**5000, "<int>"), ("x" * 1000, "'" + "x" * 59 + "..."),
], ids=("number", "text", "array", "hostile", "digits", "long"))  # fmt: skip
def test_a_value_in_a_message_is_one_short_line(value, text):
    assert quoted(value) == text


@pytest.mark.parametrize("kind", [NbLLMError, OptionError, Stopped])
def test_a_message_can_be_sent_whatever_it_names(kind):
    assert str(kind("there is no 'a\udce9'")) == r"there is no 'a\udce9'"
