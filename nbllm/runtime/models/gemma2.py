"""gemma2: Gemma 2."""

import numpy as np

from .gemma import Gemma


class Gemma2(Gemma):
    """As gemma, with norms of what attention and the net give, windows in every other layer, and soft caps."""

    needs = "post_attention_norm.weight", "post_ffw_norm.weight"
    local_layers = 1, 2  # of so many layers the first so many see a window only
    window = 4096  # unless the file says another
    large = 46  # layers of the model whose queries are scaled by width and not by key_length

    def read(self, file):
        super().read(file)
        self.score_cap = file.number("attn_logit_softcapping", 0, 1e6, default=50.0, kind=float)
        self.output_cap = file.number("final_logit_softcapping", 0, 1e6, default=30.0, kind=float)
        self.read_windows(file)

    def read_windows(self, file):
        if self.layers == self.large:
            self.scale = (self.width / self.heads.count) ** -0.5
        window = file.number("attention.sliding_window", 0, 2**24, default=self.window)
        self.local = self._local(file)  # list of bool
        self.windows = [window if local and window else None for local in self.local]

    def _local(self, file):
        local, every = self.local_layers
        pattern = file.metadata.get(f"{file.prefix}.attention.sliding_window_pattern")
        if isinstance(pattern, np.ndarray) and len(pattern) == self.layers:
            return [bool(flag) for flag in pattern]
        if pattern is not None:
            every = file.number("attention.sliding_window_pattern", 1, 1024)
            local = every - 1
        return [i % every < local for i in range(self.layers)]
