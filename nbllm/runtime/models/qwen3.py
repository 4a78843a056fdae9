"""qwen3: Qwen 3."""

from .decoder import Decoder


class Qwen3(Decoder):
    """As llama, with rope on halves of a head, and a norm of each head's queries and keys before it."""

    needs = "attn_q_norm.weight", "attn_k_norm.weight"
