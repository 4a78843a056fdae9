"""What Tab offers in `%%chat` cells and `%chat` lines: options, commands, models, conversations, and names after `{`.

A table says after which text what is offered. Knows nothing of how front ends ask; offers, and evaluates nothing but
the attributes of what was named.
"""

import re

from IPython.core.completer import SimpleCompletion, context_matcher

from nbllm.jupyter.arguments import PARSERS
from nbllm.jupyter.commands import COMMANDS
from nbllm.jupyter.sendable import sendable


def _options(command):
    return lambda shell, typed: PARSERS[command]._option_string_actions


def _names(shell, typed):
    from nbllm.jupyter.interpolate import names

    known = names(shell)
    path, dot, _ = typed.rpartition(".")
    if not dot:
        return known.variables
    try:
        return [f"{path}.{name}" for name in dir(known[path]) if not name.startswith("_")]
    except Exception:  # no such object, or its attributes fail: nothing to offer
        return ()


def _models(shell, typed):
    from nbllm.catalogue import KNOWN, available

    return {found.name for found in available()} | {model.name for model in KNOWN}


def _conversations(shell, typed):
    from nbllm.jupyter.session import running

    return running().shelf.conversations if running() else ()


_NAMES = r"(?:-w|--with|-e|--each|--schema)[ =](?:[^\s,]+,)*(?P<typed>[^\s,=-][^\s,]*|)$"
_BRACE = re.compile(r"\{(?P<typed>[^{}\s]*)$")

OFFERS = [  # what stands before the cursor in its line, of which `typed` is replaced; what is offered
    (re.compile(rf"%%chat\s(?:.*\s)?{_NAMES}"), _names),
    (re.compile(r"%%chat\s(?:.*\s)?(?P<typed>-[\w-]*)$"), _options("%%chat")),
    (re.compile(r"\s*%chat\s+(?P<typed>\w*)$"), lambda shell, typed: COMMANDS),
    (re.compile(r"\s*%chat\s+model\s+(?P<typed>\S*)$"), _models),
    (re.compile(r"\s*%chat\s+switch\s+(?P<typed>.*)$"), _conversations),
    (re.compile(rf"\s*%chat\s+fix\s(?:.*\s)?{_NAMES}"), _names),
    (re.compile(r"\s*%chat\s+fix\s(?:.*\s)?(?P<typed>-[\w-]*)$"), _options("%chat fix")),
    (re.compile(r"\s*%chat\s+retry\s(?:.*\s)?(?P<typed>-[\w-]*)$"), _options("%chat retry")),
]


def offered(shell, before: str) -> tuple[str, list[str]]:
    """What can stand for the end of this text, which begins with the cell: that end, and what is offered for it."""
    above, _, line = before.rpartition("\n")
    if above.lstrip().startswith("%%chat"):
        return named(shell, line)
    for pattern, offer in OFFERS:
        if match := pattern.match(line):
            return _beginning(match["typed"], offer(shell, match["typed"]))
    return "", []


def named(shell, before: str) -> tuple[str, list[str]]:
    """As `offered`, where prose is written: names after an open brace."""
    match = _BRACE.search(before)
    return _beginning(match["typed"], _names(shell, match["typed"])) if match else ("", [])


def _beginning(typed, offers):
    return typed, sorted(offer for offer in offers if offer.startswith(typed))


def matcher(shell):
    """For `shell.Completer.custom_matchers`."""

    @context_matcher()
    def nbllm_matcher(context):
        lines = context.full_text.split("\n")[: context.cursor_line]
        typed, offers = offered(shell, "\n".join([*lines, context.text_until_cursor]))
        completions = [SimpleCompletion(sendable(text), type="nbllm") for text in offers]
        return {"completions": completions, "matched_fragment": typed, "suppress": bool(offers)}

    return nbllm_matcher
