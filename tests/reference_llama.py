"""The reference that logits are judged by: architecture llama in plain float32 NumPy, over the dequantised weights.

Follows the model's definition (Touvron et al. 2023; grouped-query attention, Ainslie et al. 2023; rotary embedding,
Su et al. 2021) and shares nothing with the compiled kernels: no cache, no batching, one sequence from its beginning.
"""

import numpy as np

from nbllm.formats.blocks import dequantize
from nbllm.formats.open import open_model


class Reference:
    """A model file with all its weights as float32."""

    def __init__(self, path):
        with open_model(path) as file:
            get = {key.removeprefix("llama."): value for key, value in file.metadata.items()}.get
            self.weights = {
                name.removesuffix(".weight"): dequantize(tensor.block_type, tensor.data)
                for name, tensor in file.tensors.items()
            }
        self.layers, self.heads = get("block_count"), get("attention.head_count")
        self.kv_heads = get("attention.head_count_kv", self.heads)
        self.head_dim = get("attention.key_length", get("embedding_length") // self.heads)
        self.eps = np.float32(get("attention.layer_norm_rms_epsilon"))
        factors = self.weights.get("rope_freqs", np.ones(self.head_dim // 2))  # (head_dim // 2,)
        j = np.arange(self.head_dim // 2)
        self.frequencies = get("rope.freq_base", 10000.0) ** (-2.0 * j / self.head_dim) / factors  # (head_dim // 2,)

    def logits(self, ids):
        """float32 (n, vocab): for each position, the scores of what comes next."""
        w, n = self.weights, len(ids)
        x = w["token_embd"][np.asarray(ids)]  # (n, width)
        angles = np.arange(n)[:, None, None] * self.frequencies  # (n, 1, head_dim // 2) float64
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        future = np.triu(np.ones((n, n), bool), 1)  # (n, n)
        for i in range(self.layers):
            layer = f"blk.{i}."
            h = self._norm(x, layer + "attn_norm")
            q, k, v = (
                (h @ w[layer + name].T).reshape(n, -1, self.head_dim) for name in ("attn_q", "attn_k", "attn_v")
            )  # (n, heads, head_dim), (n, kv_heads, head_dim) twice
            q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
            k, v = (a.repeat(self.heads // self.kv_heads, axis=1) for a in (k, v))  # (n, heads, head_dim)
            scores = q.transpose(1, 0, 2) @ k.transpose(1, 2, 0) / np.float32(np.sqrt(self.head_dim))  # (heads, n, n)
            scores[:, future] = -np.inf
            mixed = _softmax(scores) @ v.transpose(1, 0, 2)  # (heads, n, head_dim)
            x = x + mixed.transpose(1, 0, 2).reshape(n, -1) @ w[layer + "attn_output"].T
            h = self._norm(x, layer + "ffn_norm")
            gate = h @ w[layer + "ffn_gate"].T  # (n, feed_forward)
            x = x + (gate / (1 + np.exp(-gate)) * (h @ w[layer + "ffn_up"].T)) @ w[layer + "ffn_down"].T
        return self._norm(x, "output_norm") @ w.get("output", w["token_embd"]).T

    def _norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.weights[name]


def reference_logits(path, ids):
    """float32 (n, vocab): the logits of a model file after each of the ids."""
    return Reference(path).logits(ids)


def _rotate(x, cos, sin):
    """Rotate adjacent pairs of x (n, heads, head_dim) by angles (n, 1, head_dim // 2)."""
    even, odd = x[..., ::2], x[..., 1::2]
    return np.stack([even * cos - odd * sin, even * sin + odd * cos], -1).reshape(x.shape)


def _softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)
