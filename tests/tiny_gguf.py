"""Writes small GGUF files: any metadata and tensors, or a random, seeded model of architecture llama.

Own code on purpose, so that the reader is not tested against itself.
"""

import struct

import encoders
import numpy as np

VALUE_TYPES = {  # NumPy kind and size -> GGUF value type
    "u1": 0, "i1": 1, "u2": 2, "i2": 3, "u4": 4, "i4": 5, "f4": 6, "b1": 7, "u8": 10, "i8": 11, "f8": 12,
}  # fmt: skip
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
WORDS = ["Ġthe", "Ġand", "Ġof", "Ġto", "hello", "Ġworld", "user", "assistant", "system", "ing", "tion", "Ġmoon"]


# ---- quantisation: float32 (blocks, elements) -> uint8 (blocks, bytes)


def encode(values, block_type):
    """The bytes of float32 values (..., columns) as blocks of the type named."""
    elements, function = ENCODERS[block_type]
    blocks = np.ascontiguousarray(values, np.float32).reshape(-1, elements)  # (blocks, elements)
    return function(blocks).tobytes()


def _bf16(blocks):
    bits = blocks.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")  # round to nearest, ties to even


def _encoder(block_type):
    return lambda blocks: np.frombuffer(encoders.encode(blocks, block_type), np.uint8)


ENCODERS = {  # name -> elements of a block, function
    **{name: (encoders.ENCODERS[name][0], _encoder(name)) for name in ("F32", "F16", "Q4_0", "Q4_1", "Q8_0")},
    "BF16": (1, _bf16),
}
TYPE_IDS = {name: encoders.IDS[name] for name in ENCODERS.keys() & encoders.IDS.keys()} | {"BF16": 30}


# ---- the container


LENGTHS = {1: "I", 2: "Q", 3: "Q"}  # version -> how counts, lengths and dimensions are stored


def string(text, version=3):
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    return struct.pack("<" + LENGTHS[version], len(raw)) + raw


def value(v, version=3):
    """A metadata value's type and bytes: of bool, int (u32), float (f32), str, list of str, NumPy scalar or array."""
    array = "<II" + LENGTHS[version]
    if isinstance(v, list):
        return struct.pack(array, ARRAY, STRING, len(v)) + b"".join(string(text, version) for text in v)
    if isinstance(v, str):
        return struct.pack("<I", STRING) + string(v, version)
    if isinstance(v, np.ndarray):
        return struct.pack(array, ARRAY, VALUE_TYPES[v.dtype.str[1:]], len(v)) + v.tobytes()
    if isinstance(v, np.generic):
        return struct.pack("<I", VALUE_TYPES[v.dtype.str[1:]]) + v.tobytes()
    if isinstance(v, bool):
        return struct.pack("<I?", BOOL, v)
    return struct.pack("<Ii", INT32, v) if isinstance(v, int) and v < 0 else _number(v)


def _number(v):
    return struct.pack("<II", UINT32, v) if isinstance(v, int) else struct.pack("<If", FLOAT32, v)


def gguf_head(metadata, tensors, version=3):
    """A file's bytes before the data of its tensors, which follow in this order, each filled up to the alignment.

    tensors : dict
        Name to (shape in NumPy's order, number of the block type, bytes).
    """
    alignment, length = metadata.get("general.alignment", 32), LENGTHS[version]
    head = bytearray(b"GGUF" + struct.pack(f"<I2{length}", version, len(tensors), len(metadata)))
    for key, v in metadata.items():
        head += string(key, version) + value(v, version)
    offset = 0
    for name, (shape, kind, size) in tensors.items():
        dims = shape[::-1]
        head += string(name, version) + struct.pack(f"<I{len(dims)}{length}IQ", len(dims), *dims, kind, offset)
        offset += size + -size % alignment
    return bytes(head) + bytes(-len(head) % alignment)


def gguf_bytes(metadata, tensors, version=3):
    """A GGUF file as bytes.

    Parameters
    ----------
    metadata : dict
    tensors : dict
        Name to (float32 array, block type name).
    """
    alignment = metadata.get("general.alignment", 32)
    data = {name: encode(array, kind) for name, (array, kind) in tensors.items()}
    sizes = {name: (array.shape, TYPE_IDS[kind], len(data[name])) for name, (array, kind) in tensors.items()}
    filled = (block + bytes(-len(block) % alignment) for block in data.values())
    return gguf_head(metadata, sizes, version) + b"".join(filled)


# ---- a model


def byte_spelling():
    """GPT-2's printable character for each byte, in the order of the bytes."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


def tokenizer_metadata():
    """A byte-level BPE vocabulary: three special tokens, the 256 bytes, and what merges make of a few words."""
    tokens, merges = SPECIALS + byte_spelling(), []
    for word in WORDS:
        for end in range(1, len(word)):
            if word[: end + 1] not in tokens:
                tokens.append(word[: end + 1])
                merges.append(f"{word[:end]} {word[end]}")
    types = np.array([3] * len(SPECIALS) + [1] * (len(tokens) - len(SPECIALS)), np.int32)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }


def llama(
    block_type="Q4_0",
    embedding_type="Q8_0",
    width=64,
    heads=4,
    kv_heads=2,
    head_dim=None,
    layers=2,
    feed_forward=96,
    context=256,
    tied=True,
    rope_base=10000.0,
    rope_freqs=False,
    eps=1e-5,
    seed=0,
):
    """Metadata and tensors of a random model of architecture llama.

    `block_type` is that of the layers' matrices, `embedding_type` that of the token embedding and of the output.
    The vocabulary's size is no multiple of 16, so the last rows of the output never fill a tile.
    """
    random = np.random.default_rng(seed)
    head_dim = head_dim or width // heads
    metadata = {
        "general.architecture": "llama",
        "general.name": "tiny",
        "llama.context_length": context,
        "llama.embedding_length": width,
        "llama.block_count": layers,
        "llama.feed_forward_length": feed_forward,
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": kv_heads,
        "llama.attention.layer_norm_rms_epsilon": eps,
        "llama.rope.dimension_count": head_dim,
        "llama.rope.freq_base": rope_base,
        **tokenizer_metadata(),
    }
    if head_dim != width // heads:
        metadata |= {"llama.attention.key_length": head_dim, "llama.attention.value_length": head_dim}
    vocab = len(metadata["tokenizer.ggml.tokens"])

    def matrix(rows, columns, scale=1.0, kind=block_type):
        return (random.standard_normal((rows, columns)) * scale / np.sqrt(columns)).astype(np.float32), kind

    def vector(n, mean=1.0):
        return (mean + 0.2 * random.standard_normal(n)).astype(np.float32), "F32"

    tensors = {
        "token_embd.weight": matrix(vocab, width, np.sqrt(width), embedding_type),
        "output_norm.weight": vector(width),
    }
    if not tied:
        tensors["output.weight"] = matrix(vocab, width, 3.0, embedding_type)
    if rope_freqs:
        tensors["rope_freqs.weight"] = vector(head_dim // 2, 2.0)
    for i in range(layers):
        tensors |= {
            f"blk.{i}.attn_norm.weight": vector(width),
            f"blk.{i}.attn_q.weight": matrix(heads * head_dim, width, 1.5),
            f"blk.{i}.attn_k.weight": matrix(kv_heads * head_dim, width, 1.5),
            f"blk.{i}.attn_v.weight": matrix(kv_heads * head_dim, width, 1.5),
            f"blk.{i}.attn_output.weight": matrix(width, heads * head_dim),
            f"blk.{i}.ffn_norm.weight": vector(width),
            f"blk.{i}.ffn_gate.weight": matrix(feed_forward, width),
            f"blk.{i}.ffn_up.weight": matrix(feed_forward, width),
            f"blk.{i}.ffn_down.weight": matrix(width, feed_forward),
        }
    return metadata, tensors


def write_llama(path, version=3, metadata=None, **options):
    """Write a random model to `path`, its metadata updated with `metadata`; returns the path. Options as of `llama`."""
    own, tensors = llama(**options)
    path.write_bytes(gguf_bytes(own | (metadata or {}), tensors, version))
    return path
