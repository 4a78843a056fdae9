"""gemma3: Gemma 3, its text."""

import numpy as np

from .gemma2 import Gemma2
from .rope import Angles


class Gemma3(Gemma2):
    """As gemma2, without soft caps; a norm of each head's queries and keys;
    the layers with windows have a rope of their own."""

    needs = *Gemma2.needs, "attn_q_norm.weight", "attn_k_norm.weight"
    local_layers = 5, 6
    window = 1024
    large = 62
    ropes = 2

    def read(self, file):
        super(Gemma2, self).read(file)
        self.read_windows(file)
        self.tables = [int(local) for local in self.local]
        self.local_base = file.number("rope.freq_base_swa", 1, 1e12, default=10000.0, kind=float)

    def angles(self, context):
        """Those of the layers that see all, and those of the layers that see a window."""
        rotated = self.heads.rotated
        local = self.local_base ** (-np.arange(0, rotated, 2) / rotated)  # (rotated / 2,) float64
        return Angles(context, [self.rope.turns(context), (local, 1.0)])
