"""llama: Llama 1 to 3, Mistral, Mixtral, TinyLlama, SmolLM and all that share their graph."""

from .decoder import Decoder


class Llama(Decoder):
    """RMS norm, rope on adjacent pairs, grouped queries, a net gated by SiLU or a mixture of such."""

    adjacent = True
