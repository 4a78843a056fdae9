"""gemma: Gemma 1."""

from ..program import GELU
from .decoder import Decoder


class Gemma(Decoder):
    """As llama, with rope on halves of a head, scaled embeddings, and a net gated by GELU."""

    activation = GELU

    def read(self, file):
        self.embedding_scale = self.width**0.5
