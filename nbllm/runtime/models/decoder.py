"""What the architectures have in common: a decoder of layers, each of attention and a feed-forward net.

Whatever the file shows by its tensors is taken from there: biases, joined matrices, norms of heads and of branches,
experts, a tied output. What it does not show is an attribute, which an architecture's own class sets.
"""

from types import SimpleNamespace

import numpy as np

from ...errors import ModelFileError
from ...formats.file import where
from ..program import SIDE, SILU, SOFT_CAP, Experts, Heads, Linear, Norm
from .base import Source, halves_order
from .rope import Angles, Rope

# keys of some architectures that are not computed with, and the values with which they mean nothing
UNUSED = {
    "attention.clamp_kqv": (0,), "attention.max_alibi_bias": (0,), "attention.scale": (0,), "logit_scale": (0, 1),
    "residual_scale": (0, 1), "embedding_scale": (0, 1), "rope.scaling.yarn_ext_factor": (-1, 1),
    "rope.scaling.yarn_log_multiplier": (0, 1),
}  # fmt: skip


class Decoder:
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
        (vocab, width)
    output : Linear
        (vocab, width)

    Raises
    ------
    ModelFileError
        Something is missing, damaged, or not computed yet.
    """

    centred = False  # LayerNorm, or else RMSNorm
    adjacent = False  # rope turns dimensions 2j and 2j + 1, or else j and j + rotated / 2
    turned = True  # whether there is rope at all
    ropes = 1  # tables of angles
    activation = SILU
    embedding_scale = 1.0
    experts_normalised = True  # whether the weights of the chosen experts add up to 1
    score_cap = output_cap = 0.0
    parallel = False  # the feed-forward net starts from what attention starts from
    needs = ()  # tensors of each layer, of those that not all architectures have

    def __init__(self, gguf, packer):
        file = Source(gguf)
        self.context = file.number("context_length", 1, 2**24)
        self.layers = file.number("block_count", 1, 1024)
        self.width = file.number("embedding_length", 32, 2**17)
        # GPT-J's files do not say it
        self.hidden = file.number("feed_forward_length", 32, 2**20, default=4 * self.width)
        self.heads = self._heads(file)
        self.scale = self.heads.dim**-0.5
        key = "attention.layer_norm_epsilon" if self.centred else "attention.layer_norm_rms_epsilon"
        self.eps = file.number(key, 0, 1, kind=float)
        for key, neutral in UNUSED.items():
            if (value := file.number(key, -1e9, 1e9, default=neutral[0], kind=float)) not in neutral:
                at = where(file.metadata, f"{file.prefix}.{key}")
                raise ModelFileError(
                    f"the file sets {key!r} to {value!r}{at}, which nbllm does not compute; use another file."
                )
        self.rope = Rope(file, self.heads.rotated, self.context)
        tensor = file.tensors.get("token_embd.weight")
        self.vocab = len(file.metadata.get("tokenizer.ggml.tokens", ())) or (tensor.shape[0] if tensor else 0)
        self.windows = [None] * self.layers  # positions that a layer sees; None: all
        self.tables = [0] * self.layers  # which of the tables of angles it takes
        self.read(file)
        self._file, self._packer = file, packer
        self.blocks = [self._layer(f"blk.{i}.") for i in range(self.layers)]
        self.positions = None
        if file.has("position_embd.weight"):
            self.positions = packer.vector(file.array("position_embd.weight", self.context, self.width).ravel())
        self.norm = self._norm("output_norm", self.width)
        embedding = file.tensor("token_embd.weight", self.vocab, self.width)
        tied = not file.has("output.weight")
        matrix = packer.matrix(embedding if tied else file.tensor("output.weight", self.vocab, self.width))
        self.output = Linear(matrix, self._biases("output", self.vocab))
        self.embedding = packer.lookup(embedding, matrix if tied else None)
        file.refuse_others()
        del self._file, self._packer

    def read(self, file):
        """For an architecture: read what only its files have."""

    def angles(self, context):
        """The rope.Angles of a context of so many positions."""
        return Angles(context, [self.rope.turns(context)])

    def _heads(self, file):
        count = file.number("attention.head_count", 1, 4096)
        kv_count = file.number("attention.head_count_kv", 1, count, default=count)
        dim = file.number("attention.key_length", 16, 1024, default=self.width // count)
        rotated = file.number("rope.dimension_count", 2, dim, default=dim) if self.turned else 0
        if (
            count % kv_count
            or dim % 16
            or rotated % 2
            or file.number("attention.value_length", 1, 1024, default=dim) != dim
        ):
            at = where(file.metadata, f"{file.prefix}.attention.head_count")
            raise ModelFileError(
                f"heads of {count}{at} over {kv_count} with {dim} dimensions, {rotated} of them rotated, are not "
                "supported: attention.head_count must be a multiple of head_count_kv, key_length one of 16 and "
                "value_length the same, rope.dimension_count even; use another file."
            )
        return Heads(count, kv_count, dim, rotated)

    # what a file has, collected

    def _layer(self, name):
        file, heads, width = self._file, self.heads, self.width
        q, kv = heads.count * heads.dim, heads.kv_count * heads.dim
        for tensor in self.needs:
            file.need(name + tensor)
        layer = SimpleNamespace(attn_norm=self._norm(name + "attn_norm", width), attn_after=None, ffn_after=None)
        layer.gate = layer.down = layer.experts = layer.shared = None
        orders = [None] * 3
        if self.adjacent:
            orders[:2] = (halves_order(n, heads.dim, heads.rotated) for n in (heads.count, heads.kv_count))
        layer.q, layer.k, layer.v = self._parts(
            name + "attn_qkv", [name + f"attn_{part}" for part in "qkv"], (q, kv, kv), orders
        )
        layer.q_norm = layer.k_norm = None
        if file.has(name + "attn_q_norm.weight"):
            layer.q_norm = self._head_norm(name + "attn_q_norm", heads.count)
            layer.k_norm = self._head_norm(name + "attn_k_norm", heads.kv_count)
        layer.o = self._linear(name + "attn_output", width, q)
        if file.has(name + "post_attention_norm.weight"):
            layer.attn_after = self._norm(name + "post_attention_norm", width)
        alone = not self.parallel or file.has(name + "ffn_norm.weight")
        layer.ffn_norm = self._norm(name + "ffn_norm", width) if alone else None
        if file.has(name + "post_ffw_norm.weight"):
            layer.ffn_after = self._norm(name + "post_ffw_norm", width)
        if file.has(name + "ffn_gate_inp.weight"):
            self._experts(layer, name)
        else:
            self._net(layer, name, self.hidden)
        return layer

    def _net(self, layer, name, hidden, suffix=""):
        """A feed-forward net, gated or not; its gate may stand above `up` in one matrix."""
        file = self._file
        up = name + "ffn_up" + suffix
        if file.has(up + ".weight") and file.tensors[up + ".weight"].shape[0] == 2 * hidden:
            layer.gate, layer.up = self._parts(up, None, (hidden, hidden), (None, None))
        else:
            if file.has(name + f"ffn_gate{suffix}.weight"):
                layer.gate = self._linear(name + "ffn_gate" + suffix, hidden, self.width)
            layer.up = self._linear(up, hidden, self.width)
        layer.down = self._linear(name + "ffn_down" + suffix, self.width, hidden)

    def _experts(self, layer, name):
        file, packer, width = self._file, self._packer, self.width
        count = file.number("expert_count", 1, 4096)
        used = file.number("expert_used_count", 1, min(count, SIDE))
        hidden = file.number("expert_feed_forward_length", 0, 2**20, default=0) or self.hidden
        if hidden % 32 or width % 32:
            at = where(file.metadata, f"{file.prefix}.expert_feed_forward_length")
            raise ModelFileError(
                f"experts of {hidden} activations{at} are not supported: their number is no multiple of 32."
            )
        layer.experts = Experts(
            count, used, hidden, self.experts_normalised, self._linear(name + "ffn_gate_inp", count, width),
            packer.matrix(file.tensor(name + "ffn_gate_exps.weight", count, hidden, width)),
            packer.matrix(file.tensor(name + "ffn_up_exps.weight", count, hidden, width)),
            packer.matrix(file.tensor(name + "ffn_down_exps.weight", count, width, hidden)),
        )  # fmt: skip
        if file.has(name + "ffn_gate_inp_shexp.weight"):
            layer.shared = Linear(packer.matrix(file.tensor(name + "ffn_gate_inp_shexp.weight", width)))
            self._net(
                layer, name, file.number("expert_shared_feed_forward_length", 32, 2**20, default=self.hidden), "_shexp"
            )

    def _norm(self, name, size):
        weights = self._packer.vector(self._file.array(name + ".weight", size))
        return Norm(weights, self._biases(name, size), self.centred, self.eps)

    def _head_norm(self, name, count):
        """The norm of queries or keys: with the same weights for all heads, or (count, dim)."""
        self._file.need(name + ".weight")
        dim = self.heads.dim
        shape = (dim,) if len(self._file.tensors[name + ".weight"].shape) == 1 else (count, dim)
        return Norm(
            self._packer.vector(self._file.array(name + ".weight", *shape).ravel()), None, self.centred, self.eps
        )

    def _biases(self, name, size, order=None):
        """The biases of a norm or of a matrix's rows, in their order, if the file has any."""
        if not self._file.has(name + ".bias"):
            return None
        values = self._file.array(name + ".bias", size)
        return self._packer.vector(values if order is None else values[order])

    def _linear(self, name, rows, columns, order=None):
        matrix = self._packer.matrix(self._file.tensor(name + ".weight", rows, columns), order)
        return Linear(matrix, self._biases(name, rows, order))

    def _parts(self, joined, names, sizes, orders):
        """Several matrices that the file may have joined in one, one below the other."""
        if names and not self._file.has(joined + ".weight"):
            return [self._linear(name, n, self.width, order) for name, n, order in zip(names, sizes, orders)]
        rows, parts, start = sum(sizes), [], 0
        for n, order in zip(sizes, orders):
            parts.append(self._linear(joined, rows, self.width, start + (np.arange(n) if order is None else order)))
            start += n
        return parts

    # the stages

    def write(self, program):
        """Write the model's stages."""
        heads, slot = self.heads, program.slot
        x = program.input = slot(self.width)
        h = slot(self.width)
        q, k, v = (slot(n * heads.dim) for n in (heads.count, heads.kv_count, heads.kv_count))
        mixed = slot(heads.count * heads.dim)
        nets = [block for block in self.blocks if block.down]
        hidden = max((block.down.matrix.columns for block in nets), default=0)
        gate = slot(hidden) if any(block.gate for block in nets) else None
        up = slot(hidden)
        experts = next((block.experts for block in self.blocks if block.experts), None)
        bench = program.bench(experts, self.width) if experts else None
        shared = slot(self.width) if any(block.shared for block in self.blocks) else None
        if self.embedding_scale != 1 or self.positions:
            program.embed(x, self.embedding_scale, self.positions)
        for i, block in enumerate(self.blocks):
            program.norm(block.attn_norm, x, h)
            program.linear(block.q, h, q, barrier=False)
            program.linear(block.k, h, k, barrier=False)
            program.linear(block.v, h, v)
            if block.q_norm:
                program.norm(block.q_norm, q, q, heads=(heads.count, heads.dim), barrier=False)
                program.norm(block.k_norm, k, k, heads=(heads.kv_count, heads.dim))
            if self.parallel and block.ffn_norm:
                program.norm(block.ffn_norm, x, h)
            program.attention(
                i, heads, q, k, v, mixed, self.scale, self.windows[i], self.score_cap, (self.tables[i], self.ropes)
            )
            self._add(program, block.o, mixed, x, h, block.attn_after)
            if not self.parallel:
                program.norm(block.ffn_norm, x, h)
            if block.down:
                act = self._write_net(program, block, h, gate, up)
            if block.shared:
                program.linear(block.down, act, shared)
            elif block.down:
                self._add(program, block.down, act, x, h, block.ffn_after)
            if block.experts:
                program.mixture(
                    block.experts, bench, h, x, self.activation, (block.shared, shared) if block.shared else None
                )
        last = slot(self.width, outputs=True)
        logits = program.output = slot(self.vocab, outputs=True)
        program.norm(self.norm, x, last, outputs=True)
        program.linear(self.output, last, logits, outputs=True)
        if self.output_cap:
            program.activate(SOFT_CAP, logits, logits, cap=self.output_cap, outputs=True)

    def _write_net(self, program, block, source, gate, up):
        """Returns the slot of the activations within a feed-forward net; others may be wider."""
        width = block.down.matrix.columns
        gate, up = gate and gate.narrowed(width), up.narrowed(width)
        program.linear(block.up, source, up, barrier=not block.gate)
        if not block.gate:
            program.activate(self.activation, up, up)
            return up
        program.linear(block.gate, source, gate)
        program.activate(self.activation, gate, gate, up)
        return gate

    @staticmethod
    def _add(program, linear, source, x, h, norm):
        """x += linear @ source, or the norm of that, by way of h"""
        if norm:
            program.linear(linear, source, h)
            program.norm(norm, h, x, add=True)
        else:
            program.linear(linear, source, x, add=True)
