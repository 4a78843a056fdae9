"""What the user is told when something cannot be done: one line that says what, why, and what to do next.

Knows nothing of where an error is shown; in a notebook, IPython asks `_render_traceback_` and prints that one line.
"""

CLIP = 200  # characters of an error that is not nbllm's
# What a terminal obeys, for `str.translate`: all control characters but those of lines.
CONTROLS = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def printable(text: str, kept="") -> str:
    """Text by strangers, or with it, that takes over no terminal and that any encoding can write: in one line, unless
    "\\n" is kept."""
    return "".join(
        char if char.isprintable() or char in kept else char.encode("unicode_escape").decode() for char in text
    )


def quoted(value, most=60) -> str:
    """A value in a message: in one line and not long, whatever its own `__repr__` does."""
    return _clipped(_said(repr, value), most) or f"<{type(value).__name__}>"


def _said(how, value):
    """What a stranger's object says of itself, by `how`; nothing if it raises something instead, as it may."""
    try:
        return how(value)
    except KeyboardInterrupt:
        raise
    except BaseException:  # all but an interrupt is its own
        return ""


def _clipped(text, most):
    text = " ".join(text[: 2 * most].split())
    return text if len(text) <= most else f"{text[:most]}..."


def need(good, name, value, what):
    """OptionError unless this argument is good; what : what to give in its place."""
    if not good:
        raise OptionError(f"{name}={quoted(value)} cannot be used: give {what}")


class OneLine:
    """Shown in a notebook as its message alone, without a traceback; it is one line whatever it quotes."""

    def __str__(self):
        return printable(super().__str__())

    def _render_traceback_(self):
        return [f"{type(self).__name__}: {self}"]


def brief(error: BaseException) -> str:
    """Somebody else's error, its kind and what it says, in one line that is not long, whatever its own text does."""
    text = _clipped(_said(str, error), CLIP)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def why(error: Exception) -> str:
    """What the system says of an error, without its number and the path, or what the error itself says."""
    return getattr(error, "strerror", None) or str(error)


class NbLLMError(OneLine, Exception):
    """Base of every error that nbllm raises on purpose."""


class NotCopied:
    """An object of which there is one: `instead` says what to do where a copy is wanted, here or in another process."""

    instead = ""

    def __reduce_ex__(self, protocol):  # which pickle, copy and deepcopy ask
        name = type(self).__name__
        raise NbLLMError(f"a {name} cannot be copied or pickled, nor given to another process: {self.instead}")


class ModelFileError(NbLLMError):
    """The file is damaged, or holds something that nbllm cannot run."""


class ModelNotFoundError(NbLLMError):
    """No model of that name or at that path is on this machine."""


class DownloadError(NbLLMError):
    """A model could not be fetched, or what arrived is not what was asked for."""


class TooLargeError(NbLLMError):
    """A model, or the context asked for, does not fit in this machine's memory."""


class OptionError(NbLLMError, ValueError):
    """An option is unknown or out of range."""


class ConversationFileError(NbLLMError):
    """A conversation cannot be saved, or a saved one is damaged or no such thing."""


class ContextFullError(NbLLMError):
    """The prompt does not fit in the model's context."""


class CpuError(NbLLMError):
    """This processor lacks what was asked for, the system its threads, or no compiled kernels are present."""


class Stopped(OneLine, KeyboardInterrupt):
    """The user stopped a reply. A KeyboardInterrupt, so that Run All halts."""

    def _render_traceback_(self):
        return [str(self)]
