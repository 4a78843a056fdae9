"""What `--schema` and `--json` ask for: the user's own class, list of one or JSON schema, by name, or a file.

Looks names up, and evaluates nothing else.
"""

import queue
import re
from contextlib import suppress

from nbllm.chat.grammar import wanted
from nbllm.chat.schema import DEEPEST, NESTED, Schema
from nbllm.chat.worker import WAIT
from nbllm.errors import OptionError
from nbllm.jupyter.interpolate import names
from nbllm.runtime import crew

_LIST = re.compile(r"list\[(.+)\]")
_TYPES = {each.__name__: each for each in (str, int, float, bool, list, dict)}


def schema(shell, given) -> Schema | None:
    """The schema of the options given, if there is one; raises OptionError if it is none or cannot be used."""
    if given.schema is None:
        return wanted(None, given.json)
    name = given.schema.strip()
    if name.count("list[") > DEEPEST:
        raise OptionError(NESTED)
    return _apart(lambda: wanted(Schema(_named(names(shell), name)), given.json))


def _apart(function):
    """What the function gives, from a thread of its own: compiled code, as that which checks a schema, cannot be
    interrupted on the main one. After an interrupt it is left to end by itself."""
    ended = queue.SimpleQueue()

    def run():
        try:
            ended.put((function(), None))
        except BaseException as error:  # raised again below
            ended.put((None, error))

    crew.start(run, "nbllm schema")
    while True:
        with suppress(queue.Empty):
            result, error = ended.get(timeout=WAIT)
            break
    if error is not None:
        raise error
    return result


def _named(known, name):
    if match := _LIST.fullmatch(name):
        inner = _named(known, match[1].strip())
        if isinstance(inner, (str, dict)):
            raise OptionError(f"--schema {name}: {match[1]} is no class; name one, or a schema of a list")
        return list[inner]
    try:
        value = known[name]
    except KeyError:
        return _TYPES.get(name, name)  # or the name of a file
    return value
