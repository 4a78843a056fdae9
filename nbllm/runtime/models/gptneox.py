"""gptneox: GPT-NeoX, Pythia, Dolly 2."""

from ..program import GELU
from .decoder import Decoder


class GptNeoX(Decoder):
    """LayerNorm; attention and the net usually side by side, each with a norm of its own; no gate;
    biases everywhere."""

    centred = True
    activation = GELU

    def read(self, file):
        self.parallel = file.flag("use_parallel_residual", True)
