"""qwen2: Qwen 1.5, 2 and 2.5."""

from .decoder import Decoder


class Qwen2(Decoder):
    """As llama, with rope on halves of a head, and biases of queries, keys and values."""

    needs = "attn_q.bias", "attn_k.bias", "attn_v.bias"
