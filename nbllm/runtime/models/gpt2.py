"""gpt2: GPT-2."""

from ..program import GELU
from .decoder import Decoder


class Gpt2(Decoder):
    """LayerNorm; learned positions instead of rope; no gate; biases everywhere."""

    centred = True
    turned = False
    activation = GELU
