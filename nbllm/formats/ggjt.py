"""LLaMA in the containers of before GGUF: the unversioned one of March 2023 ("ggml"), "ggmf" 1, and "ggjt" 1 to 3.

Says in GGUF's terms what these files have, and what the programs of the time knew without being told: neither the
length of the context nor the width of the feed-forward net is in them.
"""

import numpy as np

from .eras import FIRST, SECOND, THIRD
from .file import Cursor, ModelFile
from .ggml import Part, header, joined, records, vocabulary

CONTAINERS = {  # first bytes, which read backwards are the name -> versions -> the era of their blocks
    b"lmgg": {None: FIRST},
    b"fmgg": {1: FIRST},
    b"tjgg": {1: FIRST, 2: SECOND, 3: THIRD},
}
FIELDS = ("n_vocab", "n_embd", "n_mult", "n_head", "n_layer", "n_rot", "ftype")
KEYS = {  # GGUF's -> a field
    "general.file_type": "ftype",
    "llama.embedding_length": "n_embd",
    "llama.block_count": "n_layer",
    "llama.attention.head_count": "n_head",
    "llama.attention.head_count_kv": "n_head",
    "llama.rope.dimension_count": "n_rot",
}
CONTEXT, EPSILON, ROPE_BASE = 2048, 1e-6, 10000.0  # of LLaMA (Touvron et al. 2023)

EMBEDDING = "tok_embeddings.weight"
TENSORS = {  # name in the file -> GGUF's, and its dimensions: Vocabulary, Embedding, Feed-forward
    EMBEDDING: ("token_embd.weight", "VE"),
    "norm.weight": ("output_norm.weight", "E"),
    "output.weight": ("output.weight", "VE"),
    "rope.freqs": None,
}
LAYER_TENSORS = {
    "attention_norm.weight": ("attn_norm.weight", "E"),
    "attention.wq.weight": ("attn_q.weight", "EE"),
    "attention.wk.weight": ("attn_k.weight", "EE"),
    "attention.wv.weight": ("attn_v.weight", "EE"),
    "attention.wo.weight": ("attn_output.weight", "EE"),
    "ffn_norm.weight": ("ffn_norm.weight", "E"),
    "feed_forward.w1.weight": ("ffn_gate.weight", "FE"),
    "feed_forward.w2.weight": ("ffn_down.weight", "EF"),
    "feed_forward.w3.weight": ("ffn_up.weight", "FE"),
    "attention.inner_attention.rope.freqs": None,
}
COLUMNS = (EMBEDDING, "attention.wo.weight", "feed_forward.w2.weight")  # cut into columns where there are several parts

# LLaMA's own vocabulary: three special tokens, the bytes, and pieces whose score is their rank.
FIRST_BYTE, FIRST_PIECE, STOCK = 3, 259, 32000
STOCK_PIECES = {260: b" t", 261: b"er", 31999: b"\xe7\xbb\x99"}  # three of them to know it by
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # of tokenizer.ggml.token_type
SPECIALS = (("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL))  # GGUF's text of the first ones
NEVER_MERGED = -1e9


def read_llama(file):
    """As `open_model`, of an open File."""
    first = _part(file)
    numbers, count = first.numbers, _count(first)
    files = file.followed_by([file.path.with_name(f"{file.path.name}.{i}") for i in range(1, count)])
    parts = [first, *map(_part, files[1:])]
    width, hidden = numbers["n_embd"], _feed_forward(numbers)
    tensors = joined(parts, _names(numbers), {"V": numbers["n_vocab"], "E": width, "F": hidden}, COLUMNS)
    told = {
        "general.architecture": "llama",
        "llama.context_length": CONTEXT,
        "llama.feed_forward_length": hidden,
        "llama.attention.layer_norm_rms_epsilon": EPSILON,
        "llama.rope.freq_base": ROPE_BASE,
        **_tokenizer(first.tokens, first.scores),
    }
    metadata = first.described(told, KEYS)
    return ModelFile(first.container + (f", {count} parts" if count > 1 else ""), metadata, tensors, files)


def _part(file):
    cursor = Cursor(file, "<u4")
    magic = cursor.take(4, "the first bytes")
    if magic not in CONTAINERS:
        cursor.fail(f"a file of LLaMA does not begin with {magic!r}")
    name, versions = magic[::-1].decode().upper(), CONTAINERS[magic]
    version = None if None in versions else cursor.integer("<u4", "the version")
    if version not in versions:
        cursor.fail(f"{name} version {version} is not supported", f"use one of version {', '.join(map(str, versions))}")
    numbers = header(cursor, FIELDS)
    if numbers["n_embd"] != numbers["n_head"] * numbers["n_rot"]:
        cursor.fail(
            f"n_embd is {numbers['n_embd']}, not n_head * n_rot = {numbers['n_head'] * numbers['n_rot']}",
            "the file is damaged, or of an architecture that nbllm cannot read; use a GGUF file",
            "n_embd",
        )
    tokens, scores = vocabulary(cursor, numbers["n_vocab"], version is not None, EMBEDDING.encode())
    if len(tokens) == numbers["n_vocab"] - 1 and version is None:
        tokens, scores = [*tokens, b"<pad>"], [*scores, 0.0]  # left out of gpt4all-lora-quantized.bin
    if len(tokens) != numbers["n_vocab"]:
        cursor.fail(f"n_vocab is {numbers['n_vocab']}, but there are {len(tokens)} tokens", at="n_vocab")
    if version is None and _is_stock(tokens):
        scores = _stock_scores(tokens)
    container, era = name if version is None else f"{name} {version}", versions[version]
    head = cursor.data[: cursor.position]
    found = records(cursor, _names(numbers), era, aligned=magic == b"tjgg")
    return Part(file, cursor, container, era, numbers, tokens, scores, head, found)


def _count(part):
    """How many parts there are: as many as the embedding is cut into."""
    if EMBEDDING not in part.records:
        part.cursor.fail(f"tensor {EMBEDDING!r} is missing", at=part.cursor.size)
    record, width = part.records[EMBEDDING], part.numbers["n_embd"]
    if width % record.shape[-1]:
        part.cursor.fail(
            f"tensor {EMBEDDING!r} has rows of {record.shape[-1]}, no part of n_embd, {width}", at=record.offset
        )
    return width // record.shape[-1]


def _names(numbers):
    return TENSORS | {
        f"layers.{i}.{name}": target and (f"blk.{i}.{target[0]}", target[1])
        for i in range(numbers["n_layer"])
        for name, target in LAYER_TENSORS.items()
    }


def _feed_forward(numbers):
    """Two thirds of four times the width, rounded up to a multiple of n_mult."""
    return -(-(2 * (4 * numbers["n_embd"]) // 3) // numbers["n_mult"]) * numbers["n_mult"]


def _is_stock(tokens):
    return len(tokens) >= STOCK and all(tokens[id] == piece for id, piece in STOCK_PIECES.items())


def _stock_scores(tokens):
    """The scores that the unversioned files leave out: list of float."""
    scores = [float(min(FIRST_PIECE - id, 0)) for id in range(len(tokens))]
    for id in range(FIRST_PIECE, len(tokens)):
        if id >= STOCK or not tokens[id].strip(b" "):  # what was added, and pieces of nothing but spaces
            scores[id] = NEVER_MERGED
    return scores


def _tokenizer(tokens, scores):
    """The vocabulary in GGUF's spelling: a space is U+2581, and a byte <0xNN>.

    tokens : list of bytes
    """
    texts = [token.decode("utf-8", "surrogateescape") for token in tokens]
    types = np.full(len(tokens), NORMAL, np.int32)  # (n_vocab,)
    texts[:STOCK] = [text.replace(" ", "\u2581") for text in texts[:STOCK]]
    types[STOCK:] = CONTROL  # added for a fine-tuned model: never made of text
    for id, (text, kind) in enumerate(SPECIALS[: len(tokens)]):
        texts[id], types[id] = text, kind
    for id in range(FIRST_BYTE, min(FIRST_PIECE, len(tokens))):
        if tokens[id] == bytes([id - FIRST_BYTE]):
            texts[id], types[id] = f"<0x{id - FIRST_BYTE:02X}>", BYTE
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.scores": np.array(scores, np.float32),
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_space_prefix": True,
    }
