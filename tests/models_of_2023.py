"""Small random models in every container of 2023, written again from seeds, byte for byte; and the logits that other
programs gave for them (tests/data/models_2023.npz).

Shares nothing with `nbllm.formats`. The order of draws, tensors and keys is that of the recorded files: do not tidy it.
"""

import struct
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import tiny_gguf
from encoders import IDS, encode
from oracle_models import multi_head

RECORDED = Path(__file__).parent / "data" / "models_2023.npz"
STEP = 1 / 1024  # of the recorded logits

WORDS = (
    "he|ll|hell|hello| t| th|the| the|in|er|an| a|on|re| s| w| hello|or|ld| wor|wor| world|world|at| c| cat|cat|is| is"
    "|it| it|é|ñ| 你|好"
).split("|")

NARROW = dict(vocab=320, width=32, heads=2, layers=32, feed_forward=96)
MEDIUM = dict(vocab=320, width=64, heads=4, layers=32, feed_forward=192)
WIDE = dict(vocab=512, width=256, heads=4, layers=26, feed_forward=768)
SHORT = dict(vocab=320, width=64, heads=4, layers=2, feed_forward=192)
SHORT_WIDE = dict(vocab=320, width=256, heads=4, layers=1, feed_forward=768)
GPTJ = dict(vocab=320, width=64, heads=4, layers=2, feed_forward=256, context=96, rotated=8)

OLD_TYPES = ("F32", "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
K_TYPES = ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
LLAMA_FTYPES = {  # what the header says of the whole file
    "F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q4_2": 5, "Q4_3": 6, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9,
    "Q2_K": 10, "Q3_K": 12, "Q4_K": 15, "Q5_K": 17, "Q6_K": 18,
}  # fmt: skip
MIXED = {"token_embd": "F16", "output": "Q8_0", "blk.0.attn_q": "Q5_1", "blk.1.attn_v": "F32"}

LLAMA_NAMES = {
    "token_embd": "tok_embeddings", "output_norm": "norm", "attn_q": "attention.wq", "attn_k": "attention.wk",
    "attn_v": "attention.wv", "attn_output": "attention.wo", "attn_norm": "attention_norm",
    "ffn_gate": "feed_forward.w1", "ffn_down": "feed_forward.w2", "ffn_up": "feed_forward.w3",
}  # fmt: skip
GPTJ_NAMES = {
    "token_embd": "transformer.wte", "output_norm": "transformer.ln_f", "output": "lm_head", "attn_norm": "ln_1",
    "attn_q": "attn.q_proj", "attn_k": "attn.k_proj", "attn_v": "attn.v_proj", "attn_output": "attn.out_proj",
    "ffn_up": "mlp.fc_in", "ffn_down": "mlp.fc_out",
}  # fmt: skip
CUT_BY_COLUMNS = ("tok_embeddings.weight", "attention.wo.weight", "feed_forward.w2.weight")


@dataclass(frozen=True)
class Model:
    """How a model was made.

    Attributes
    ----------
    container : str
        "ggml", "ggmf", "ggjt" or "gguf".
    version : int or None
        For GPT-J the version of its quantisation, the thousands of ftype.
    era : int
        Of its blocks, 1 to 3.
    kind : str
        Block type of its matrices.
    sizes : dict
    parts : int
    pad_missing : bool
        Whether the vocabulary lacks its last token, as that of GPT4All's first model.
    kinds : dict
        Block types of single matrices.
    """

    container: str
    version: int | None
    era: int
    kind: str
    sizes: dict
    parts: int = 1
    pad_missing: bool = False
    kinds: dict = field(default_factory=dict)

    @property
    def gptj(self):
        return "rotated" in self.sizes

    def kind_of(self, name, array):
        return "F32" if array.ndim == 1 else self.kinds.get(name.removesuffix(".weight"), self.kind)


def _models():
    for kind in OLD_TYPES[:4]:
        yield f"llama-ggml-{kind}", Model("ggml", None, 1, kind, NARROW)
    yield "llama-ggml-gpt4all-Q4_0", Model("ggml", None, 1, "Q4_0", NARROW | dict(vocab=321), pad_missing=True)
    for kind in OLD_TYPES[1:4]:
        yield f"llama-ggmf1-{kind}", Model("ggmf", 1, 1, kind, NARROW)
    yield "llama-ggmf1-2part-Q4_0", Model("ggmf", 1, 1, "Q4_0", MEDIUM, parts=2)
    yield "llama-ggjt1-mixed-Q4_0", Model("ggjt", 1, 1, "Q4_0", NARROW, kinds=MIXED)
    for kind in (*OLD_TYPES, "Q4_2", "Q4_3"):
        yield f"llama-ggjt1-{kind}", Model("ggjt", 1, 1, kind, NARROW)
    for kind in OLD_TYPES:
        yield f"llama-ggjt2-{kind}", Model("ggjt", 2, 2, kind, NARROW)
        yield f"llama-ggjt3-{kind}", Model("ggjt", 3, 3, kind, NARROW)
    for kind in K_TYPES:
        yield f"llama-ggjt3-{kind}", Model("ggjt", 3, 3, kind, WIDE)
    for version in (1, 2, 3):
        for kind in ("F16", "Q4_0", "Q8_0"):
            yield f"llama-gguf{version}-{kind}", Model("gguf", version, 3, kind, SHORT)
    for kind in ("F32", "Q4_1", "Q5_0", "Q5_1"):
        yield f"llama-gguf3-{kind}", Model("gguf", 3, 3, kind, SHORT)
    for kind in K_TYPES:
        yield f"llama-gguf3-{kind}", Model("gguf", 3, 3, kind, SHORT_WIDE)
    yield "llama-split-00001-of-00002", Model("gguf", 3, 3, "Q8_0", SHORT, parts=2)
    for version in (0, 1, 2):
        for kind in (*OLD_TYPES, "Q4_2", "Q4_3") if version == 0 else OLD_TYPES:
            yield f"gptj-q{version}-{kind}", Model("ggml", version, version + 1, kind, GPTJ)
    for kind in ("F16", "Q4_0"):
        yield f"gptj-gguf3-{kind}", Model("gguf", 3, 3, kind, GPTJ)


MODELS = dict(_models())
with np.load(RECORDED) as _file:
    DIGESTS = dict(zip(_file["names"].tolist(), _file["sha256"].tolist(), strict=True))  # of the first part


def recorded(name):
    """Token ids int32 (n,) and the logits recorded for a model: float32 (n, vocab), or (vocab,) of the last alone."""
    with np.load(RECORDED) as file:
        return file[f"{name}-tokens"].astype(np.int32), file[f"{name}-logits"].astype(np.float32) * np.float32(STEP)


def write(name, folder):
    """Write the model's files into a folder; returns the path of the first."""
    model = MODELS[name]
    return (_write_gguf if model.container == "gguf" else _write_old)(name, model, folder)


# ---- weights


def weights(model):
    """GGUF's name -> float32 array, in the order of the file."""
    return dict(_weights(**model.sizes))


@lru_cache(2)
def _weights(**sizes):
    if "rotated" not in sizes:
        return {f"{name}.weight": array.astype(np.float32) for name, array in multi_head(**sizes).items()}
    return _gptj_weights(**sizes)


def _gptj_weights(vocab, width, layers, feed_forward, **_):
    random = np.random.default_rng(1234)

    def matrix(rows, columns, scale=1.0):
        return (random.standard_normal((rows, columns)) * scale / np.sqrt(columns)).astype(np.float32)

    def vector(n, mean=0.0):
        return (mean + 0.2 * random.standard_normal(n)).astype(np.float32)

    weights = {"token_embd.weight": random.standard_normal((vocab, width)).astype(np.float32)}
    for i in range(layers):
        weights[f"blk.{i}.attn_norm.weight"] = vector(width, 1)
        weights[f"blk.{i}.attn_norm.bias"] = vector(width)
        for name in ("attn_k", "attn_v", "attn_q"):
            weights[f"blk.{i}.{name}.weight"] = matrix(width, width, 1.5)
        weights[f"blk.{i}.attn_output.weight"] = matrix(width, width)
        weights[f"blk.{i}.ffn_up.weight"] = matrix(feed_forward, width)
        weights[f"blk.{i}.ffn_up.bias"] = vector(feed_forward)
        weights[f"blk.{i}.ffn_down.weight"] = matrix(width, feed_forward)
        weights[f"blk.{i}.ffn_down.bias"] = vector(width)
    weights["output_norm.weight"] = vector(width, 1)
    weights["output_norm.bias"] = vector(width)
    weights["output.weight"] = matrix(vocab, width, 3.0)
    weights["output.bias"] = vector(vocab)
    return weights


# ---- vocabularies


def llama_vocabulary(size):
    """List of (bytes, score), with real spaces, as the old containers have it."""
    tokens = [(" ⁇ ".encode(), 0.0), (b"", 0.0), (b"", 0.0), *((bytes([byte]), 0.0) for byte in range(256))]
    for word in (*WORDS, *"abcdefghijklmnopqrstuvwxyz "):
        tokens.append((word.encode(), 258.0 - len(tokens)))
    tokens += [(b"tok%d" % i, -1000.0 - i) for i in range(size - len(tokens))]
    return tokens[:size]


def gptj_vocabulary(size):
    """List of bytes."""
    tokens = [bytes([byte]) for byte in range(256)] + [word.encode() for word in WORDS]
    return (tokens + [b"<|extratoken_%d|>" % (i + 1) for i in range(size - len(tokens))])[:size]


def gguf_tokens(size):
    """Tokens of LLaMA as GGUF spells them, and their types: list of str, int32 (size,)."""
    texts = [text.decode("utf-8", "replace").replace(" ", "▁") for text, _ in llama_vocabulary(size)]
    texts[:259] = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    return texts, np.array([2, 3, 3] + [6] * 256 + [1] * (size - 259), np.int32)


# ---- containers


def _write_old(name, model, folder):
    for part in range(model.parts):
        (folder / (f"{name}.bin" + (f".{part}" if part else ""))).write_bytes(old_bytes(model, part))
    return folder / f"{name}.bin"


def old_bytes(model, part=0):
    """The bytes of a part of a file of before GGUF."""
    sizes, names = model.sizes, GPTJ_NAMES if model.gptj else LLAMA_NAMES
    out = bytearray(model.container.encode()[::-1])
    ftype = LLAMA_FTYPES[model.kind]
    if model.gptj:
        context, rotated = sizes["context"], sizes["rotated"]
        out += struct.pack("<3i", sizes["vocab"], context, sizes["width"])
        out += struct.pack("<4i", sizes["heads"], sizes["layers"], rotated, 1000 * model.version + ftype)
        tokens = gptj_vocabulary(sizes["vocab"])
        out += struct.pack("<i", len(tokens)) + b"".join(struct.pack("<i", len(token)) + token for token in tokens)
    else:
        out += b"" if model.version is None else struct.pack("<i", model.version)
        out += struct.pack("<3i", sizes["vocab"], sizes["width"], sizes["width"])  # the last is n_mult
        out += struct.pack("<4i", sizes["heads"], sizes["layers"], sizes["width"] // sizes["heads"], ftype)
        for token, score in llama_vocabulary(sizes["vocab"] - model.pad_missing):
            out += struct.pack("<i", len(token)) + token
            out += b"" if model.version is None else struct.pack("<f", score)
    for new_name, array in weights(model).items():
        kind = model.kind_of(new_name, array)
        name = _old_name(new_name, names, "transformer.h." if model.gptj else "layers.")
        if model.parts > 1 and array.ndim == 2:
            array = np.split(array, model.parts, axis=int(name.endswith(CUT_BY_COLUMNS)))[part]
        out += struct.pack("<3i", array.ndim, len(name), IDS[kind])
        out += struct.pack(f"<{array.ndim}i", *array.shape[::-1]) + name.encode()
        out += bytes(-len(out) % 32) if model.container == "ggjt" else b""
        out += encode(array, kind, model.era)
    return bytes(out)


def _old_name(name, names, layers):
    *layer, stem, ending = name.removeprefix("blk.").split(".")
    return "".join(f"{layers}{i}." for i in layer) + f"{names.get(stem, stem)}.{ending}"


def _write_gguf(name, model, folder):
    metadata, arrays = _gptj_metadata(model) if model.gptj else _llama_metadata(model), list(weights(model).items())
    for part in range(model.parts):
        own = metadata
        if model.parts > 1:
            own = metadata if part == 0 else {"general.architecture": metadata["general.architecture"]}
            own = own | {
                "split.no": np.uint16(part), "split.count": np.uint16(model.parts),
                "split.tensors.count": np.int32(len(arrays)),
            }  # fmt: skip
        each = len(arrays) // model.parts
        mine = arrays[part * each : (part + 1) * each if part + 1 < model.parts else None]
        path = folder / f"{name.replace('00001', f'{part + 1:05d}')}.gguf"
        path.write_bytes(gguf_bytes(model, own, mine))
    return folder / f"{name}.gguf"


def gguf_bytes(model, metadata, arrays):
    kinds = {name: model.kind_of(name, array) for name, array in arrays}
    data = {name: encode(array, kinds[name]) for name, array in arrays}
    sizes = {name: (array.shape, IDS[kinds[name]], len(data[name])) for name, array in arrays}
    head = tiny_gguf.gguf_head(metadata, sizes, model.version)
    return head + b"".join(block + bytes(-len(block) % 32) for block in data.values())


def _llama_metadata(model):
    sizes = model.sizes
    texts, types = gguf_tokens(sizes["vocab"])
    return {
        "general.architecture": "llama",
        "general.name": "tiny",
        "general.file_type": LLAMA_FTYPES[model.kind],
        "llama.context_length": 64,
        "llama.embedding_length": sizes["width"],
        "llama.block_count": sizes["layers"],
        "llama.feed_forward_length": sizes["feed_forward"],
        "llama.attention.head_count": sizes["heads"],
        "llama.attention.head_count_kv": sizes["heads"],
        "llama.rope.dimension_count": sizes["width"] // sizes["heads"],
        "llama.attention.layer_norm_rms_epsilon": 1e-6,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": np.array([score for _, score in llama_vocabulary(sizes["vocab"])], np.float32),
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "general.quantization_version": 2,
    }


def _gptj_metadata(model):
    sizes = model.sizes
    return {
        "general.architecture": "gptj",
        "general.name": "tiny",
        "general.file_type": LLAMA_FTYPES[model.kind],
        "gptj.context_length": sizes["context"],
        "gptj.embedding_length": sizes["width"],
        "gptj.block_count": sizes["layers"],
        "gptj.attention.head_count": sizes["heads"],
        "gptj.rope.dimension_count": sizes["rotated"],
        "gptj.attention.layer_norm_epsilon": 1e-5,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": gptj_vocabulary(sizes["vocab"]),
        "tokenizer.ggml.merges": ["h e"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 0,
        "general.quantization_version": 2,
    }
