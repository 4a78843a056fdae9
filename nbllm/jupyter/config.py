"""The settings of a notebook, as traits: `%config NbLLM.temperature = 0`, `c.NbLLM.model = ...`, `--NbLLM.threads=2`.

The sampling options are those of `Sampling`, field by field. Knows nothing of cells and loads no model.
"""

from dataclasses import fields
from numbers import Integral

from traitlets import Enum, Float, Int, List, Unicode
from traitlets.config import Configurable

from nbllm.chat.describe import BUDGET
from nbllm.chat.transcript import OVERFLOW
from nbllm.runtime.options import Sampling


def _trait(option):
    kind, optional = option.metadata.get("kind"), option.metadata.get("optional", False)
    help = option.metadata["help"]
    if kind is None:
        return List(Unicode(), list(option.default), help=help).tag(config=True)
    return (Int if kind is Integral else Float)(option.default, allow_none=optional, help=help).tag(config=True)


def _listed(choices):
    return "; ".join(f"{name}: {help}" for name, help in choices.items())


class NbLLM(Configurable):
    """What `%%chat` uses where its options say nothing."""

    model = Unicode(None, allow_none=True, help="a known model's name or a path; none is the default model").tag(
        config=True
    )
    system = Unicode(None, allow_none=True, help="system prompt of new conversations").tag(config=True)
    context = Int(None, allow_none=True, min=1, help="tokens of context; none is what memory allows").tag(
        config=True
    )
    cache_bits = Enum([16, 8], 16, help="bits of a number in the cache; 8 takes about half the memory").tag(config=True)
    threads = Int(None, allow_none=True, min=1, help="threads to compute with; none is one a core").tag(config=True)
    describe = Int(BUDGET, min=1, help="most tokens that describe one of your objects in a prompt").tag(config=True)
    overflow = Enum(list(OVERFLOW), "drop", help=f"when the context is full: {_listed(OVERFLOW)}").tag(config=True)
    vars().update({option.name: _trait(option) for option in fields(Sampling)})

    def sampling(self) -> Sampling:
        """The sampling options as they are set now; raises OptionError when one is out of range."""
        return Sampling(**{option.name: getattr(self, option.name) for option in fields(Sampling)})


def settings(shell) -> NbLLM:
    """The settings of this IPython shell, which `%config` lists; the first call makes them."""
    for configurable in shell.configurables:
        if isinstance(configurable, NbLLM):
            return configurable
    shell.configurables.append(NbLLM(parent=shell))
    return shell.configurables[-1]
