"""gptj: GPT-J, of old files and of GPT4All's GGUF."""

from ..program import GELU
from .decoder import Decoder


class GptJ(Decoder):
    """LayerNorm, one for attention and the net, which stand side by side; rope on adjacent pairs; no gate."""

    centred = adjacent = parallel = True
    activation = GELU
