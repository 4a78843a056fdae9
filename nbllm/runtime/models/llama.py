"""llama: Llama 1 to 3, Mistral, TinyLlama, SmolLM and all that share their graph.

RMS norm; rope on adjacent pairs, with frequency factors where the file has them; grouped-query attention; a feed-forward
net gated by SiLU; no biases; the output matrix its own or that of the embeddings.
"""

from ...errors import ModelFileError
from ..program import Heads
from .base import Source, halves_order, rope_angles


class Llama:
    """What the engine needs to know of one file.

    Parameters
    ----------
    gguf : formats.file.ModelFile
    packer : packed.Packer
        Collects the weights.

    Attributes
    ----------
    context : int
        Positions that the model was trained for.
    layers, width, vocab : int
    heads : Heads
    embedding : Matrix or Rows
    output : Matrix
        (vocab, width) both

    Raises
    ------
    ModelFileError
        Something is missing, damaged, or not computed yet.
    """

    def __init__(self, gguf, packer):
        file = Source(gguf)
        self.context = file.number("context_length", 1, 2**24)
        self.layers = file.number("block_count", 1, 1024)
        self.width = file.number("embedding_length", 32, 2**17)
        self.hidden = file.number("feed_forward_length", 32, 2**20)
        count = file.number("attention.head_count", 1, 4096)
        kv_count = file.number("attention.head_count_kv", 1, count, default=count)
        dim = file.number("attention.key_length", 16, 1024, default=self.width // count)
        rotated = file.number("rope.dimension_count", 2, dim, default=dim)
        if count % kv_count or dim % 16 or rotated % 2 or file.number("attention.value_length", 1, 1024, default=dim) != dim:
            raise ModelFileError(
                f"heads of {count} over {kv_count} with {dim} dimensions, {rotated} of them rotated, are not supported."
            )
        self.heads = Heads(count, kv_count, dim, rotated)
        self.eps = file.number("attention.layer_norm_rms_epsilon", 0, 1, kind=float)
        self.rope_base = file.number("rope.freq_base", 1, 1e12, default=10000.0, kind=float)
        scaling = file.word("rope.scaling.type", "linear")
        if scaling not in ("none", "linear"):
            raise ModelFileError(f"rope scaling {scaling!r} is not computed yet; nbllm knows none and linear.")
        factor = file.number("rope.scaling.factor", 0, 1e6, default=1.0, kind=float) if scaling == "linear" else 1.0
        self.rope_scale = 1.0 / factor if factor else 1.0
        self.rope_factors = file.vector("rope_freqs.weight", rotated // 2) if file.has("rope_freqs.weight") else None
        if file.has("rope_factors_long.weight"):
            raise ModelFileError("rope with long and short factors is not computed yet; use another file.")
        vocab_tensor = file.tensors.get("token_embd.weight")
        self.vocab = len(file.metadata.get("tokenizer.ggml.tokens", ())) or (vocab_tensor.shape[0] if vocab_tensor else 0)
        self._collect(file, packer)

    def _collect(self, file, packer):
        heads, width, hidden = self.heads, self.width, self.hidden
        q_rows, kv_rows = heads.count * heads.dim, heads.kv_count * heads.dim
        q_order = halves_order(heads.count, heads.dim, heads.rotated)
        k_order = halves_order(heads.kv_count, heads.dim, heads.rotated)
        self.blocks = []
        for i in range(self.layers):
            name = f"blk.{i}.".__add__
            file.refuse(map(name, ("attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias", "ffn_down.bias")), "a bias")
            file.refuse(map(name, ("ffn_gate_inp.weight", "ffn_gate_exps.weight")), "a mixture of experts")
            self.blocks.append({
                "attn_norm": packer.vector(file.vector(name("attn_norm.weight"), width)),
                "q": packer.matrix(file.tensor(name("attn_q.weight"), q_rows, width), q_order),
                "k": packer.matrix(file.tensor(name("attn_k.weight"), kv_rows, width), k_order),
                "v": packer.matrix(file.tensor(name("attn_v.weight"), kv_rows, width)),
                "o": packer.matrix(file.tensor(name("attn_output.weight"), width, q_rows)),
                "ffn_norm": packer.vector(file.vector(name("ffn_norm.weight"), width)),
                "gate": packer.matrix(file.tensor(name("ffn_gate.weight"), hidden, width)),
                "up": packer.matrix(file.tensor(name("ffn_up.weight"), hidden, width)),
                "down": packer.matrix(file.tensor(name("ffn_down.weight"), width, hidden)),
            })  # fmt: skip
        self.norm = packer.vector(file.vector("output_norm.weight", width))
        embedding = file.tensor("token_embd.weight", self.vocab, width)
        tied = not file.has("output.weight")
        self.output = packer.matrix(embedding if tied else file.tensor("output.weight", self.vocab, width))
        self.embedding = packer.lookup(embedding, self.output if tied else None)

    def angles(self, positions):
        """float32 (positions, 2, rotated / 2)"""
        return rope_angles(positions, self.heads.rotated, self.rope_base, self.rope_factors, self.rope_scale)

    def write(self, program):
        """Write the model's stages."""
        heads, slot = self.heads, program.slot
        x = program.input = slot(self.width)
        h = slot(self.width)
        q, k, v = (slot(n * heads.dim) for n in (heads.count, heads.kv_count, heads.kv_count))
        mixed = slot(heads.count * heads.dim)
        gate, up, act = (slot(self.hidden) for _ in range(3))
        for layer, block in enumerate(self.blocks):
            program.rms_norm(block["attn_norm"], x, h, self.eps)
            program.matmul(block["q"], h, q, barrier=False)
            program.matmul(block["k"], h, k, barrier=False)
            program.matmul(block["v"], h, v)
            program.attention(layer, heads, q, k, v, mixed)
            program.matmul(block["o"], mixed, x, add=True)
            program.rms_norm(block["ffn_norm"], x, h, self.eps)
            program.matmul(block["gate"], h, gate, barrier=False)
            program.matmul(block["up"], h, up)
            program.silu_mul(gate, up, act)
            program.matmul(block["down"], act, x, add=True)
        last = slot(self.width, outputs=True)
        program.output = slot(self.vocab, outputs=True)
        program.rms_norm(self.norm, x, last, self.eps, outputs=True)
        program.matmul(self.output, last, program.output, outputs=True)
