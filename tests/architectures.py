"""Small random models of every architecture, written from seeds, with the logits that other programs gave for them
(tests/data/architectures.npz), and a forward pass of them all in plain NumPy.

The forward pass follows the models' papers and shares nothing with the code under test: no cache, no steps, one
sequence from its beginning. Where the recorded models' bytes depend on it, the order of draws and keys is theirs: do
not tidy it.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tiny_gguf
from models_of_2023 import gguf_tokens, llama_vocabulary

RECORDED = Path(__file__).parent / "data" / "architectures.npz"
WIDTH, HEADS, VOCAB, HIDDEN = 64, 4, 320, 96


@dataclass(frozen=True)
class Model:
    """How a model is made, and what it computes."""

    arch: str
    dim: int = 16
    rotated: int = 16
    layers: int = 7
    context: int = 64
    kv_heads: int = 2
    centred: bool = False  # LayerNorm
    adjacent: bool = False  # rope on pairs (2j, 2j + 1)
    gelu: bool = False
    gated: bool = True
    tied: bool = False
    joined_qkv: bool = False
    joined_gate: bool = False
    qkv_biases: bool = False
    biases: bool = False
    output_bias: bool = False
    scaled: bool = False  # embeddings, by the root of their width
    head_norms: int = 0  # dimensions of their weights: 1 for all heads alike, 2 for each its own
    branch_norms: bool = False
    learned: bool = False  # positions
    side_by_side: str = ""  # "one norm" or "two norms"
    frequencies: bool = False
    long_and_short: bool = False
    base: float = 0.0
    local_base: float = 0.0
    scaling: tuple = ()
    original: int = 0
    magnitude: float = 0.0
    window: int = 0
    full_every: int = 0
    score_cap: float = 0.0
    output_cap: float = 0.0
    experts: int = 0
    used: int = 0
    expert_hidden: int = 0
    shared_hidden: int = 0
    normalised: bool = True


LLAMA = dict(arch="llama", adjacent=True)
PLAIN = dict(centred=True, gelu=True, gated=False, joined_qkv=True, biases=True, kv_heads=4)
GEMMA = dict(dim=32, rotated=32, gelu=True, scaled=True, tied=True)
MODELS = {
    "llama": Model(**LLAMA),
    "llama-freqs": Model(**LLAMA, frequencies=True, base=500000.0),
    "llama-linear": Model(**LLAMA, scaling=("linear", 4.0)),
    "llama-yarn": Model(**LLAMA, scaling=("yarn", 4.0), original=16, context=256),
    "llama-nemo": Model(**LLAMA, dim=32, rotated=32),
    "llama-tied": Model(**LLAMA, tied=True),
    "llama-biases": Model(**LLAMA, qkv_biases=True),
    "qwen2": Model("qwen2", qkv_biases=True),
    "qwen3": Model("qwen3", dim=32, rotated=32, head_norms=1),
    "gemma": Model("gemma", **GEMMA),
    "gemma2": Model(
        "gemma2", **GEMMA, branch_norms=True, score_cap=5.0, output_cap=3.0, window=4, full_every=2, layers=26
    ),
    "gemma3": Model(
        "gemma3", **GEMMA, branch_norms=True, head_norms=1, window=4, full_every=6, base=1e6, local_base=10000.0,
        scaling=("linear", 8.0),
    ),  # fmt: skip
    "phi3": Model("phi3", rotated=12, joined_qkv=True, joined_gate=True),
    "phi3-long": Model(
        "phi3", joined_qkv=True, joined_gate=True, original=32, context=256, long_and_short=True, magnitude=1.19
    ),
    "stablelm": Model("stablelm", centred=True, rotated=4, qkv_biases=True),
    "stablelm-12b": Model("stablelm", centred=True, rotated=4, head_norms=2, side_by_side="one norm"),
    "gpt2": Model("gpt2", **PLAIN, rotated=0, learned=True, tied=True),
    "gptneox": Model("gptneox", **PLAIN, rotated=4, side_by_side="two norms"),
    "phi2": Model("phi2", **PLAIN, rotated=8, output_bias=True, side_by_side="one norm"),
    "llama-experts": Model(**LLAMA, experts=4, used=2, expert_hidden=HIDDEN),
    "qwen2moe": Model(
        "qwen2moe", qkv_biases=True, experts=6, used=3, expert_hidden=32, shared_hidden=64, normalised=False
    ),
    "qwen3moe": Model("qwen3moe", dim=32, rotated=32, head_norms=1, experts=8, used=2, expert_hidden=32),
}


def recorded(name):
    """Token ids int32 (n,), and the logits recorded for a model after every second of them, float32 (n / 2, vocab)."""
    with np.load(RECORDED) as file:
        return file["tokens"].astype(np.int32), file[name]


def digest(name):
    """The SHA-256 of the model file whose logits were recorded."""
    with np.load(RECORDED) as file:
        return dict(zip(file["names"].tolist(), file["sha256"].tolist(), strict=True))[name]


def write(model, path, block_type="F32"):
    """Write a model to `path`; returns the path. The block type is that of the matrices in its layers."""
    tensors = {
        key: (array, block_type if key.startswith("blk.") and array.ndim > 1 and "norm" not in key else "F32")
        for key, array in weights(model).items()
    }
    path.write_bytes(tiny_gguf.gguf_bytes(metadata(model), tensors))
    return path


def weights(m):
    """Name -> float32 array, in the order of the file."""
    random = np.random.default_rng(7)
    w = {}

    def matrix(name, rows, columns, scale=1.0, biases=False):
        w[name + ".weight"] = (random.standard_normal((rows, columns)) * scale / np.sqrt(columns)).astype(np.float32)
        if biases:
            w[name + ".bias"] = vector(rows)

    def vector(n, mean=0.0):
        return (mean + 0.2 * random.standard_normal(n)).astype(np.float32)

    def norm(name):
        w[name + ".weight"] = vector(WIDTH, 1)
        if m.centred:
            w[name + ".bias"] = vector(WIDTH)

    def experts(name, rows, columns):
        values = random.standard_normal((m.experts, rows, columns)) / np.sqrt(columns)
        w[name + ".weight"] = values.astype(np.float32)

    w["token_embd.weight"] = random.standard_normal((VOCAB, WIDTH)).astype(np.float32) * (0.3 if m.scaled else 1)
    if m.learned:
        w["position_embd.weight"] = random.standard_normal((m.context, WIDTH)).astype(np.float32)
    norm("output_norm")
    if not m.tied:
        matrix("output", VOCAB, WIDTH, 3.0, m.output_bias)
    if m.frequencies:
        w["rope_freqs.weight"] = np.abs(vector(m.rotated // 2, 2))
    if m.long_and_short:
        w["rope_factors_long.weight"] = np.abs(vector(m.rotated // 2, 2))
        w["rope_factors_short.weight"] = np.abs(vector(m.rotated // 2, 1))
    q_rows, kv_rows = HEADS * m.dim, m.kv_heads * m.dim
    for i in range(m.layers):
        p = f"blk.{i}."
        norm(p + "attn_norm")
        if m.joined_qkv:
            matrix(p + "attn_qkv", q_rows + 2 * kv_rows, WIDTH, 1.5, m.biases)
        else:
            for part, rows in (("q", q_rows), ("k", kv_rows), ("v", kv_rows)):
                matrix(p + f"attn_{part}", rows, WIDTH, 1.5, m.qkv_biases)
        for part, heads in (("q", HEADS), ("k", m.kv_heads)):
            if m.head_norms:
                values = vector(m.dim if m.head_norms == 1 else heads * m.dim, 1)
                w[p + f"attn_{part}_norm.weight"] = values if m.head_norms == 1 else values.reshape(heads, m.dim)
        matrix(p + "attn_output", WIDTH, q_rows, biases=m.biases)
        if m.branch_norms:
            w[p + "post_attention_norm.weight"] = vector(WIDTH, 1)
            w[p + "post_ffw_norm.weight"] = vector(WIDTH, 1)
        if m.side_by_side != "one norm":
            norm(p + "ffn_norm")
        if m.experts:
            matrix(p + "ffn_gate_inp", m.experts, WIDTH, 3.0)
            experts(p + "ffn_gate_exps", m.expert_hidden, WIDTH)
            experts(p + "ffn_up_exps", m.expert_hidden, WIDTH)
            experts(p + "ffn_down_exps", WIDTH, m.expert_hidden)
            if m.shared_hidden:
                w[p + "ffn_gate_inp_shexp.weight"] = vector(WIDTH)
                matrix(p + "ffn_gate_shexp", m.shared_hidden, WIDTH)
                matrix(p + "ffn_up_shexp", m.shared_hidden, WIDTH)
                matrix(p + "ffn_down_shexp", WIDTH, m.shared_hidden)
            continue
        matrix(p + "ffn_up", 2 * HIDDEN if m.joined_gate else HIDDEN, WIDTH)
        if m.gated and not m.joined_gate:
            matrix(p + "ffn_gate", HIDDEN, WIDTH)
        matrix(p + "ffn_down", WIDTH, HIDDEN)
        if m.biases:
            w[p + "ffn_up.bias"] = vector(HIDDEN)
            w[p + "ffn_down.bias"] = vector(WIDTH)
    return w


def metadata(m):
    texts, types = gguf_tokens(VOCAB)
    own = {
        "context_length": m.context,
        "embedding_length": WIDTH,
        "block_count": m.layers,
        "feed_forward_length": HIDDEN,
        "attention.head_count": HEADS,
        "attention.head_count_kv": m.kv_heads,
        "attention.layer_norm_epsilon" if m.centred else "attention.layer_norm_rms_epsilon": 1e-5,
    }
    if m.dim != WIDTH // HEADS:
        own |= {"attention.key_length": m.dim, "attention.value_length": m.dim}
    optional = {
        "rope.dimension_count": m.rotated,
        "rope.freq_base": m.base,
        "rope.scaling.type": m.scaling and m.scaling[0],
        "rope.scaling.factor": m.scaling and m.scaling[1],
        "rope.scaling.original_context_length": m.original,
        "rope.scaling.attn_factor": m.magnitude,
        "attention.sliding_window": m.window,
        "attn_logit_softcapping": m.score_cap,
        "final_logit_softcapping": m.output_cap,
        "expert_count": m.experts,
        "expert_used_count": m.used,
        "expert_feed_forward_length": m.experts and m.expert_hidden,
        "expert_shared_feed_forward_length": m.shared_hidden,
    }
    own |= {
        key: value for key, value in optional.items() if value or (key, m.arch) == ("attention.sliding_window", "phi3")
    }
    if m.arch == "gptneox":
        own["use_parallel_residual"] = True
    return {
        "general.architecture": m.arch,
        **{f"{m.arch}.{key}": value for key, value in own.items()},
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": np.array([score for _, score in llama_vocabulary(VOCAB)], np.float32),
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


# ---- what the models compute, in float64


def logits(model, ids):
    """float64 (n, vocab): the logits of a model after each of the ids."""
    return Forward(model).run(np.asarray(ids))


class Forward:
    def __init__(self, model):
        self.m, self.w = model, weights(model)

    def run(self, ids):
        m, w, n = self.m, self.w, len(ids)
        x = w["token_embd.weight"][ids].astype(np.float64)  # (n, width)
        x = x * np.sqrt(WIDTH) if m.scaled else x
        x = x + w["position_embd.weight"][:n] if m.learned else x
        for i in range(m.layers):
            p = f"blk.{i}."
            h = self._norm(x, p + "attn_norm")
            attended = self._branch(self._attention(h, p, self._local(i)), p + "post_attention_norm")
            if not m.side_by_side:
                x, attended = x + attended, 0
            h = h if m.side_by_side == "one norm" else self._norm(x, p + "ffn_norm")
            net = self._experts(h, p) if m.experts else self._net(h, p)
            x = x + attended + self._branch(net, p + "post_ffw_norm")
        x = self._norm(x, "output_norm")
        out = x @ w["token_embd.weight"].T if m.tied else self._linear(x, "output")
        return m.output_cap * np.tanh(out / m.output_cap) if m.output_cap else out

    def _local(self, layer):
        return bool(self.m.window) and layer % self.m.full_every != self.m.full_every - 1

    def _branch(self, x, name):
        return self._norm(x, name) if self.m.branch_norms else x

    def _norm(self, x, name):
        x = x - x.mean(-1, keepdims=True) if self.m.centred else x
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * self.w[name + ".weight"]
        return x + self.w.get(name + ".bias", 0)

    def _linear(self, x, name):
        return x @ self.w[name + ".weight"].T.astype(np.float64) + self.w.get(name + ".bias", 0)

    def _attention(self, h, p, local):
        m, n = self.m, len(h)
        names = ("attn_qkv",) if m.joined_qkv else ("attn_q", "attn_k", "attn_v")
        joined = np.concatenate([self._linear(h, p + name) for name in names], -1)
        q, k, v = np.split(joined.reshape(n, -1, m.dim), (HEADS, HEADS + m.kv_heads), axis=1)  # (n, heads, dim)
        if m.head_norms:
            q, k = self._norm(q, p + "attn_q_norm"), self._norm(k, p + "attn_k_norm")
        q, k = self._rope(q, local), self._rope(k, local)
        k, v = (a.repeat(HEADS // m.kv_heads, axis=1) for a in (k, v))
        scores = np.einsum("ahd,bhd->hab", q, k) / np.sqrt(m.dim)  # (heads, n, n)
        if m.score_cap:
            scores = m.score_cap * np.tanh(scores / m.score_cap)
        behind = np.arange(n)[:, None] - np.arange(n)  # (n, n)
        scores[:, (behind < 0) | (local & (behind >= m.window))] = -np.inf
        return self._linear(np.einsum("hab,bhd->ahd", _softmax(scores), v).reshape(n, -1), p + "attn_output")

    def _rope(self, x, local):
        m, w, half = self.m, self.w, self.m.rotated // 2
        base = m.local_base if local and m.local_base else m.base or 10000.0
        turns = base ** (-np.arange(half) / max(half, 1))  # (half,)
        turns = turns / w.get("rope_freqs.weight", 1.0) / w.get("rope_factors_long.weight", 1.0)
        magnitude, (kind, factor) = m.magnitude or 1.0, m.scaling or ("none", 1.0)
        if kind == "yarn":
            # between the pairs that turn 32 times and once in the original context, from their own frequency to a part
            # of it
            low, high = (m.rotated * np.log(m.original / (t * 2 * np.pi)) / (2 * np.log(base)) for t in (32, 1))
            low, high = max(0, np.floor(low)), min(m.rotated - 1, np.ceil(high))
            mixed = np.clip((np.arange(half) - low) / max(0.001, high - low), 0, 1)
            turns = turns * (1 - mixed) + turns / factor * mixed
            magnitude *= 1 + 0.1 * np.log(factor)
        elif not (local and m.local_base):
            turns = turns / factor
        angles = (np.arange(len(x))[:, None] * turns)[:, None]  # (n, 1, half)
        cos, sin = magnitude * np.cos(angles), magnitude * np.sin(angles)
        adjacent, apart = (slice(0, 2 * half, 2), slice(1, 2 * half, 2)), (slice(half), slice(half, 2 * half))
        one, two = adjacent if m.adjacent else apart
        y = x.copy()
        y[..., one], y[..., two] = x[..., one] * cos - x[..., two] * sin, x[..., one] * sin + x[..., two] * cos
        return y

    def _activation(self, x):
        if self.m.gelu:
            return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        return x / (1 + np.exp(-x))

    def _net(self, h, p, suffix=""):
        up = self._linear(h, p + "ffn_up" + suffix)
        if self.m.joined_gate:
            up = self._activation(up[:, :HIDDEN]) * up[:, HIDDEN:]
        elif self.m.gated:
            up = self._activation(self._linear(h, p + "ffn_gate" + suffix)) * up
        else:
            up = self._activation(up)
        return self._linear(up, p + "ffn_down" + suffix)

    def _experts(self, h, p):
        chances = _softmax(self._linear(h, p + "ffn_gate_inp"))  # (n, experts)
        gate, up, down = (self.w[p + f"ffn_{name}_exps.weight"].astype(np.float64) for name in ("gate", "up", "down"))
        out = np.zeros_like(h)
        for t, x in enumerate(h):
            chosen = chances[t].argsort()[::-1][: self.m.used]
            shares = chances[t, chosen] / (chances[t, chosen].sum() if self.m.normalised else 1)
            for e, share in zip(chosen, shares):
                out[t] += share * (down[e] @ (self._activation(gate[e] @ x) * (up[e] @ x)))
        if self.m.shared_hidden:
            share = 1 / (1 + np.exp(-h @ self.w[p + "ffn_gate_inp_shexp.weight"]))  # (n,)
            out += share[:, None] * self._net(h, p, "_shexp")
        return out


def _softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)
