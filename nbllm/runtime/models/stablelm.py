"""stablelm: StableLM 3B and 1.6B, and 12B."""

from .decoder import Decoder


class StableLm(Decoder):
    """LayerNorm; a net gated by SiLU. Without a norm of its own, the net stands beside attention."""

    centred = True

    def read(self, file):
        self.parallel = not file.has("blk.0.ffn_norm.weight")
