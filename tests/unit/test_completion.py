"""What Tab offers, and what of the text it replaces."""

import pytest
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell

from nbllm.jupyter import session
from nbllm.jupyter.completion import named, offered
from nbllm.jupyter.config import settings
from nbllm.jupyter.magics import register, unregister


class Thing:
    size, _hidden = 5, 6

    @property
    def broken(self):
        raise RuntimeError("no")


@pytest.fixture(scope="module")
def shell():
    shell = InteractiveShell.instance()
    register(shell)
    shell.user_ns.update(prices=1, price_list=2, thing=Thing())
    session.session(settings(shell)).shelf.new("my tales")
    yield shell
    unregister(shell)
    InteractiveShell.clear_instance()


CASES = {  # the text before the cursor: what is replaced, what is offered
    "%%chat --ma": ("--ma", ["--max-tokens"]),
    "%%chat -t 0 --repeat-": ("--repeat-", ["--repeat-penalty", "--repeat-window"]),
    "%%chat --with pri": ("pri", ["price_list", "prices"]),
    "%%chat -w prices,pric": ("pric", ["price_list", "prices"]),
    "%%chat -w thing.": ("thing.", ["thing.broken", "thing.size"]),
    "%%chat -w prices --co": ("--co", ["--code"]),
    "%%chat\nIs {pri": ("pri", ["price_list", "prices"]),
    "\n%%chat -t 0\nIs {prices} or {thing.s": ("thing.s", ["thing.size"]),
    "%%chat\n{thing.broken.": ("thing.broken.", []),
    "%%chat\n{nothing.": ("nothing.", []),
    "%%chat\n--ma": ("", []),
    "%%chat\n{ pri": ("", []),
    "%chat re": ("re", ["retry"]),
    "%chat ne": ("ne", ["new"]),
    "x = 1\n  %chat ex": ("ex", ["export"]),
    "%%chat --schema pri": ("pri", ["price_list", "prices"]),
    "%%chat --sch": ("--sch", ["--schema"]),
    "%chat retry --co": ("--co", ["--code"]),
    "%chat retry --ne": ("--ne", []),
    "%chat fix --sy": ("--sy", ["--system"]),
    "%chat fix -w thing,pri": ("pri", ["price_list", "prices"]),
    "%chat switch my t": ("my t", ["my tales"]),
    "%chat model smollm2-1": ("smollm2-1", ["smollm2-1.7b", "smollm2-135m"]),
    "%chat save pri": ("", []),
    "print({pri": ("", []),
    "": ("", []),
}


@pytest.mark.parametrize("before", CASES)
def test_offered(shell, before):
    assert offered(shell, before) == CASES[before]


def test_in_prose_only_names_are_offered(shell):
    assert named(shell, "%chat ne {pri") == ("pri", ["price_list", "prices"])
    assert named(shell, "%chat ne") == ("", [])


def test_the_shell_s_completer_offers_this_alone_and_no_more_after_unloading(shell):
    with provisionalcompleter():
        (found,) = shell.Completer.completions("%%chat --max", 12)
    assert (found.text, found.start, found.end) == ("--max-tokens", 7, 12)
    unregister(shell)
    assert shell.Completer.custom_matchers == []
    register(shell)
