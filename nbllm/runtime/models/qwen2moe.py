"""qwen2moe: Qwen 1.5 and 2 as mixtures of experts."""

from .qwen2 import Qwen2


class Qwen2Moe(Qwen2):
    """As qwen2; besides the experts that a token chooses there is one shared by all, weighed by a sigmoid."""

    experts_normalised = False
