"""qwen3moe: Qwen 3 as a mixture of experts."""

from .qwen3 import Qwen3


class Qwen3Moe(Qwen3):
    """As qwen3, with experts, of which the chosen ones' weights add up to 1."""
