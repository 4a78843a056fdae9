"""Values of the user's variables in a prompt: `{name}` becomes `str(value)`.

Only a bare name that the user has defined is replaced, once; whatever else is in braces stays, and a value that holds
braces itself is not looked at again. Nothing is evaluated, so no prompt can run code or break on a brace.
"""

import re

from nbllm.errors import NbLLMError

_NAME = re.compile(r"\{([^\W\d]\w*)\}")


def interpolate(text: str, variables) -> tuple[str, list[str]]:
    """`text` with the values in place, and the names that were replaced, in order, each once."""
    used = {}

    def value(match):
        name = match[1]
        if name not in variables:
            return match[0]
        if name not in used:
            try:
                used[name] = str(variables[name])
            except Exception as error:  # the user's own __str__ may do anything
                raise NbLLMError(f"{{{name}}} cannot be put into the prompt: str({name}) raised {error!r}") from error
        return used[name]

    return _NAME.sub(value, text), list(used)


def variables(shell) -> dict:
    """What the user has defined in this IPython shell, without IPython's own (In, Out, exit, ...)."""
    return {name: value for name, value in shell.user_ns.items() if name not in shell.user_ns_hidden}
