"""What stands on the first line of a `%%chat` cell, or behind `%chat retry` and `%chat fix`.

The sampling options are those of `Sampling`, field by field. Only parses; knows nothing of models and cells.
"""

import argparse
import keyword
import shlex
from dataclasses import fields
from numbers import Integral

from nbllm.errors import OptionError
from nbllm.runtime.options import Sampling

_SHORT = {"temperature": "-t"}


class _Parser(argparse.ArgumentParser):
    def error(self, message):
        raise OptionError(f"{self.prog}: {message}; the options are {', '.join(self._option_string_actions)}")


def _name(text):
    if not text.isidentifier() or keyword.iskeyword(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a name for a variable")
    return text


def _names(text):
    return [name.strip() for name in text.split(",") if name.strip()]


def _shown(default):
    return "none" if default in (None, ()) else default


def _parser(prog, question=True):
    """question : whether options are taken that change what is asked."""
    parser = _Parser(prog, add_help=False, allow_abbrev=False)
    if question:
        _add_question(parser)
    parser.add_argument("-o", "--out", metavar="NAME", type=_name, help="keep the reply in this variable")
    parser.add_argument("--schema", metavar="NAME", help="a reply that fits this class, list[CLASS] or JSON schema: a "
                        "variable or a file; with --out, NAME.value has it as objects")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="a reply that is JSON, an object or a list")
    parser.add_argument("-c", "--code", action="store_true", help="put the reply's Python into the next cell, unrun")
    for option in fields(Sampling):
        kind, flag = option.metadata.get("kind"), "--" + option.name.replace("_", "-")
        how = {"type": int if kind is Integral else float} if kind else {"action": "append"}
        parser.add_argument(
            *(_SHORT[option.name], flag) if option.name in _SHORT else (flag,),
            **how,
            metavar="X",
            default=None,
            help=f"{option.metadata['help']} (default {_shown(option.default)})".replace("%", "%%"),
        )
    return parser


def _add_question(parser):
    parser.add_argument("-n", "--new", action="store_true", help="start a new conversation with this message")
    parser.add_argument("-s", "--system", metavar="TEXT", help="system prompt, from here on in this conversation")
    parser.add_argument("-w", "--with", metavar="NAMES", type=_names, dest="attached", action="extend", default=[],
                        help="describe these objects to the model: df,x.attr,Out[3]")  # fmt: skip


PARSERS = {
    "%%chat": _parser("%%chat"),
    "%chat fix": _parser("%chat fix"),
    "%chat retry": _parser("%chat retry", question=False),
}
PARSERS["%%chat"].add_argument(
    "-e", "--each", metavar="NAME", help="ask about each row of this column, table or list; the answers are kept as "
    "a column. In the cell, {} is the row and {name} what it has of a column",
)  # fmt: skip
PARSERS["%%chat"].add_argument(
    "--bg", action="store_true", help="do not wait: the reply is written while other cells run; the cell's value, or "
    "what --out names, follows and stops it",
)  # fmt: skip
PARSERS["%%chat"].add_argument("--raw", action="store_true",
                               help="leave {name} as it is, also where it names a variable")  # fmt: skip


def parse(line: str, command: str = "%%chat") -> tuple[argparse.Namespace, dict]:
    """The options given on this line: those of the cell, and the fields of `Sampling`."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise OptionError(f"{command}: {str(error).lower()} in {line.strip()!r}") from error
    given = PARSERS[command].parse_args(words)
    sampling = {option.name: vars(given).pop(option.name) for option in fields(Sampling)}
    return given, {name: value for name, value in sampling.items() if value is not None}
