"""GPT-J in the container of before GGUF (the unversioned "ggml"), as GPT4All-J has it.

Says in GGUF's terms what these files have. Their tokens are given as the bytes that they stand for, as GPT4All's own
GGUF files of this architecture give them; merges are in neither, and a token's rank among them is its id.
"""

from .eras import FIRST, SECOND, THIRD
from .file import Cursor, ModelFile
from .ggml import Part, header, joined, records, vocabulary

FIELDS = ("n_vocab", "n_ctx", "n_embd", "n_head", "n_layer", "n_rot", "ftype")
KEYS = {  # GGUF's -> a field
    "gptj.context_length": "n_ctx",
    "gptj.embedding_length": "n_embd",
    "gptj.block_count": "n_layer",
    "gptj.attention.head_count": "n_head",
    "gptj.rope.dimension_count": "n_rot",
}
ERAS = (FIRST, SECOND, THIRD)  # by the thousands of ftype
EPSILON = 1e-5
END = b"<|endoftext|>"

EMBEDDING = "transformer.wte.weight"
TENSORS = {  # name in the file -> GGUF's, and its dimensions: Vocabulary, Embedding, Feed-forward
    EMBEDDING: ("token_embd.weight", "VE"),
    "transformer.ln_f.weight": ("output_norm.weight", "E"),
    "transformer.ln_f.bias": ("output_norm.bias", "E"),
    "lm_head.weight": ("output.weight", "VE"),
    "lm_head.bias": ("output.bias", "V"),
}
LAYER_TENSORS = {
    "ln_1.weight": ("attn_norm.weight", "E"),
    "ln_1.bias": ("attn_norm.bias", "E"),
    "attn.q_proj.weight": ("attn_q.weight", "EE"),
    "attn.k_proj.weight": ("attn_k.weight", "EE"),
    "attn.v_proj.weight": ("attn_v.weight", "EE"),
    "attn.out_proj.weight": ("attn_output.weight", "EE"),
    "mlp.fc_in.weight": ("ffn_up.weight", "FE"),
    "mlp.fc_in.bias": ("ffn_up.bias", "F"),
    "mlp.fc_out.weight": ("ffn_down.weight", "EF"),
    "mlp.fc_out.bias": ("ffn_down.bias", "E"),
}


def is_gptj(data):
    """Whether a file with the magic "ggml" is GPT-J's: only it has the size of the vocabulary twice.

    data : bytes-like, the file
    """
    return data[4:8] == data[32:36]


def read_gptj(file):
    """As `open_model`, of an open File."""
    cursor = Cursor(file, "<u4")
    cursor.take(4, "the first bytes")
    numbers = header(cursor, FIELDS)
    n_vocab, width, heads, rotated = (numbers[name] for name in ("n_vocab", "n_embd", "n_head", "n_rot"))
    if width % heads or rotated > width // heads:
        values = f"{width}, {heads} and {rotated}"
        cursor.fail(f"n_embd, n_head and n_rot are {values}, which do not fit each other", at="n_embd")
    version, ftype = divmod(numbers["ftype"], 1000)
    if version >= len(ERAS):
        what = f"ftype is {numbers['ftype']}, its quantisation version {version}, not 0 to {len(ERAS) - 1}"
        cursor.fail(what, at="ftype")
    cursor.take(4, "n_vocab, a second time")
    tokens, scores = vocabulary(cursor, n_vocab, False, EMBEDDING.encode())
    if len(tokens) != n_vocab:
        cursor.fail(f"n_vocab is {n_vocab}, but there are {len(tokens)} tokens", at="n_vocab")
    head, era = cursor.data[: cursor.position], ERAS[version]
    names = TENSORS | {
        f"transformer.h.{i}.{name}": (f"blk.{i}.{target}", letters)
        for i in range(numbers["n_layer"])
        for name, (target, letters) in LAYER_TENSORS.items()
    }
    found = records(cursor, names, era, aligned=False)
    part = Part(file, cursor, "GGML", era, numbers, tokens, scores, head, found)
    tensors = joined([part], names, {"V": n_vocab, "E": width, "F": 4 * width})
    end = {"tokenizer.ggml.eos_token_id": tokens.index(END)} if END in tokens else {}
    told = {
        "general.architecture": "gptj",
        "general.file_type": ftype,
        "gptj.feed_forward_length": 4 * width,
        "gptj.attention.layer_norm_epsilon": EPSILON,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [token.decode("utf-8", "surrogateescape") for token in tokens],
        **end,
    }
    return ModelFile(part.container, part.described(told, KEYS), tensors, [file])
