"""phi2: Phi 1, 1.5 and 2."""

from ..program import GELU
from .decoder import Decoder


class Phi2(Decoder):
    """LayerNorm, one for attention and the net, which stand side by side; no gate; biases everywhere."""

    centred = parallel = True
    activation = GELU
