"""Jinja2's immutable sandbox for chat templates, with a budget of steps and of sizes on top.

The sandbox keeps a template from reaching Python; the budget keeps it from taking all time or memory, which would end
the Jupyter kernel and the user's variables with it. Knows nothing of messages.
"""

import datetime
import json
import sys

from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_TEXT = 1 << 24  # characters
MAX_STEPS = 2_000_000  # lines of Python for one prompt


class Refusal(Exception):
    """The template called `raise_exception`."""


class TooMuch(Exception):
    """The template went over its budget."""


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment that `apply_chat_template` gives to templates."""

    def __init__(self):
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
        self.filters["tojson"] = tojson
        self.globals.update(raise_exception=raise_exception, strftime_now=strftime_now)

    @staticmethod
    def run(template, variables):
        """Render within the budget. Tracing concerns this thread only, and only meanwhile."""
        steps = 0

        def count(frame, event, argument):
            nonlocal steps
            steps += 1
            if steps > MAX_STEPS:
                raise TooMuch(f"it takes more than {MAX_STEPS:,} steps")
            return count

        before = sys.gettrace()
        sys.settrace(count)
        try:
            parts, length = [], 0
            for part in template.generate(variables):
                parts.append(part)
                length += len(part)
                if length > MAX_TEXT:
                    raise TooMuch(f"it makes more than {MAX_TEXT:,} characters")
            return "".join(parts)
        finally:
            sys.settrace(before)


class Generation(Extension):
    """`{% generation %}` marks the assistant's part for training; it has no meaning here."""

    tags = {"generation"}

    def parse(self, parser):
        next(parser.stream)
        return parser.parse_statements(["name:endgeneration"], drop_needle=True)


def raise_exception(message):
    raise Refusal(message)


def strftime_now(format):
    return datetime.datetime.now().strftime(format)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    """Plain JSON; Jinja's own filter escapes characters for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
