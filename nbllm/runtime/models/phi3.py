"""phi3: Phi 3, 3.5 and 4."""

from .decoder import Decoder


class Phi3(Decoder):
    """As llama, with rope on halves of a head, whose factors may depend on the context's length.

    The window that files name is not applied, as in llama.cpp, after which these files are made.
    """
