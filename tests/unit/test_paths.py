"""Paths as users write them."""

from pathlib import Path

import pytest

from nbllm.errors import ConversationFileError, NbLLMError
from nbllm.paths import expanded


def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert expanded("~/a") == expanded(Path("~/a")) == tmp_path / "a"
    assert expanded("a/~") == Path("a/~")


@pytest.mark.parametrize("path", ["~there-is-no-such-user/a", None, 5, b"a", ["a"]])
def test_what_has_no_home_folder_or_is_no_path_is_one_line(path):
    for kind in (NbLLMError, ConversationFileError):
        with pytest.raises(NbLLMError) as error:
            expanded(path, kind)
        assert type(error.value) is kind and "\n" not in str(error.value)
