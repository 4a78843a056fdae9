"""The user's objects in a prompt: `{name}`, `{name.attribute}`, `{In[3]}`, `{Out[3]}`, `{Err[3]}`, and `--with`.

Each becomes what a model should know of it. Only what is there is replaced, once; whatever else is in braces stays, and
so do f-strings, LaTeX, and doubled braces. A text that was put in is not looked at again. Attributes are looked up and
nothing else is evaluated, so no prompt can run code or break on a brace.
"""

import re

from nbllm.chat.code import fenced
from nbllm.chat.describe import BUDGET, describe
from nbllm.errors import NbLLMError, OptionError, brief
from nbllm.jupyter.failures import failures

_REFERENCE = r"[^\W\d]\w*(?:\.[^\W\d_]\w*)*|(?:In|Out|Err)\[\d{1,9}\]"

_WRITTEN = re.compile(
    rf"""(?P<kept> \b(?:f|fr|rf) (?: (?P<quotes>\"{{3}}|'{{3}}) [\s\S]*? (?P=quotes)
                                   | (?P<quote>["']) (?:\\.|(?!(?P=quote))[^\\\n])* (?P=quote) )
             | \\[a-z]+ (?: \{{ (?:[^{{}}\n]|\{{[^{{}}\n]*\}})* \}} )+ )
       | (?<![{{$^_]) \{{ (?P<reference>{_REFERENCE}) \}} (?!\}})""",
    re.VERBOSE | re.IGNORECASE,
)
_ATTACHED = re.compile(rf"\A(?:`(?:{_REFERENCE})`:\n(?P<fence>`{{3,}})\n(?:(?!(?P=fence)).*\n)*(?P=fence)\n\n)+")
_NUMBERED = re.compile(r"(In|Out|Err)\[(\d+)\]")


class Names:
    """What can be named in a prompt.

    Parameters
    ----------
    variables : mapping
        The user's, without IPython's own.
    numbered : dict
        For "In", "Out" and "Err", which are numbered by cell: what has the numbers, a list or a dict.
    """

    def __init__(self, variables, numbered=None):
        self.variables = variables
        self._numbered = numbered or {}

    def __getitem__(self, reference: str):
        """The object; KeyError when there is none, NbLLMError when an attribute of the user's raises anything else."""
        try:
            return self._found(reference)
        except (KeyError, KeyboardInterrupt):
            raise
        except BaseException as error:  # all but an interrupt is the attribute's own
            raise NbLLMError(f"{{{reference}}} cannot be looked up: {brief(error)}") from error

    def _found(self, reference):
        if match := _NUMBERED.fullmatch(reference):
            try:
                return self._numbered[match[1]][int(match[2])]
            except IndexError:
                raise KeyError(reference) from None
        name, *attributes = reference.split(".")
        value = self.variables[name]
        for attribute in attributes:
            try:
                value = getattr(value, attribute)
            except AttributeError:
                raise KeyError(reference) from None
        return value


def names(shell) -> Names:
    """What the user of this IPython shell can name; inputs are as they were typed."""
    # of a copy, since a cell may run meanwhile, and make variables
    variables = {name: value for name, value in shell.user_ns.copy().items() if name not in shell.user_ns_hidden}
    history = shell.history_manager.input_hist_raw
    return Names(variables, {"In": history, "Out": shell.user_ns.get("Out", {}), "Err": failures(shell).tracebacks})


def interpolate(text: str, names: Names, budget: int = BUDGET) -> tuple[str, dict[str, bool]]:
    """`text` with the objects in place, and what was put in, in order: whether it is all there is to the object."""
    used = {}  # reference: (text, whole)

    def value(match):
        reference = match["reference"]
        if reference is None:
            return match[0]
        if reference not in used:
            try:
                used[reference] = _described(reference, names, budget)
            except KeyError:
                return match[0]
        return used[reference][0]

    return _WRITTEN.sub(value, text), {reference: whole for reference, (_, whole) in used.items()}


def asked(prompt: str) -> str:
    """A prompt without what `attached` put above it."""
    return _ATTACHED.sub("", prompt)


def attached(references: list[str], names: Names, budget: int = BUDGET) -> tuple[str, dict[str, bool]]:
    """The descriptions of these objects, to stand above a prompt, and what was put in, as `interpolate` has it."""
    parts, used = [], {}
    for reference in references:
        try:
            text, used[reference] = _described(reference, names, budget)
        except KeyError:
            raise OptionError(f"--with: there is no {reference!r}; name variables, or In[3], Out[3], Err[3]") from None
        parts.append(f"`{reference}`:\n{fenced(text)}\n\n")
    return "".join(parts), used


def told(reference: str, names: Names, budget: int = BUDGET) -> str | None:
    """What a prompt would say in place of this reference in braces, or why it could not; None where it would stay as it
    is."""
    try:
        text, used = interpolate(f"{{{reference}}}", names, budget)
    except NbLLMError as error:
        return str(error)
    return text if used else None


def _described(reference, names, budget):
    value = names[reference]
    try:
        return describe(value, budget)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's own __str__ may do anything
        raise NbLLMError(
            f"{{{reference}}} cannot be put into the prompt: its description raised {brief(error)}"
        ) from error
