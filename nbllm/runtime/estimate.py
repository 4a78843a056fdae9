"""What a model will take in memory, before anything of it is loaded. Plain numbers in, bytes out; opens no file.

The weights are mapped and may be shared, but all of them are read for each token: if they do not fit, every token waits
for the disk. Keys and values are kept as float16 or in 8 bits, activations in float32 and again in 8 bits.
"""

from dataclasses import dataclass
from numbers import Real

import numpy as np

from ..errors import TooLargeError
from .engine import MAX_OUTPUTS
from .generation import MAX_TOKENS
from .memory import gb
from .models import ARCHITECTURES
from .program import PAGE, SIDE, page_result, scratch

ACTIVATION_BYTES = 5.75  # of an activation: float32, int8, and six numbers for every 32
PACKED = 1.03  # laid out, rows are filled up, and those of the embedding may be there twice
RESERVE = 256 * 10**6  # bytes that a process takes beside the model, and leaves to others
LEAST_CONTEXT = 1024  # tokens; with fewer than these, a conversation is over before it began
ADVICE = "free some, or use a smaller model (`nbllm models` says which fit)"


@dataclass(frozen=True)
class Shape:
    """The numbers of a model that decide what it takes. Where `width` is 0, its activations are not known.

    layers, kv_heads, head_dim : of the cache; heads, width, hidden, vocab : of the activations; experts : of a mixture
    of them what a token's choices take; ropes : tables of angles.
    """

    layers: int
    kv_heads: int
    head_dim: int
    heads: int = 0
    width: int = 0
    hidden: int = 0
    vocab: int = 0
    experts: int = 0
    ropes: int = 1

    def cache(self, context: int, bits: int = 16) -> int:
        """Bytes of the keys and values of so many tokens; in 8 bits, a head of a position has a scale, too."""
        a_head = self.head_dim * bits // 8 + 4 * (bits == 8)
        return 2 * a_head * self.layers * self.kv_heads * (-(-context // PAGE) * PAGE)

    def activations(self, context: int) -> int:
        """Bytes of everything else but the weights."""
        qkv = (2 * self.heads + 2 * self.kv_heads) * self.head_dim
        a_token = 2 * self.width + qkv + 2 * self.hidden + self.experts
        slots = a_token * min(MAX_TOKENS, context) + (self.width + self.vocab) * MAX_OUTPUTS
        pages = -(-context // PAGE)
        results = 4 * self.heads * 4 * pages * page_result(self.head_dim)  # of the pages, float32
        own = 4 * scratch(self.head_dim)  # a thread's, float32; others' are left out
        angles = 4 * context * self.head_dim * self.ropes
        return int(ACTIVATION_BYTES * slots) + results + own + angles

    def needs(self, weights: int, context: int, bits: int = 16) -> int:
        """Bytes in all, with this many of weights."""
        return RESERVE + weights + self.cache(context, bits) + self.activations(context)

    def context(self, weights: int, free: int, most: int, bits: int = 16) -> int:
        """The longest context, in whole pages and at most `most` tokens, that fits in `free` bytes; 0 if none does."""
        if self.needs(weights, most, bits) <= free:
            return most
        low, high = 0, -(-most // PAGE)  # pages: `low` fit, `high` do not
        while high - low > 1:
            middle = (low + high) // 2
            if self.needs(weights, middle * PAGE, bits) <= free:
                low = middle
            else:
                high = middle
        return low * PAGE


def shape(metadata: dict) -> Shape | None:
    """The shape of a model by the keys that all architectures share; None where they are missing.

    It refuses nothing: whether the file can be run is for others to say.
    """
    layers, width = _number(metadata, "block_count"), _number(metadata, "embedding_length")
    heads = _number(metadata, "attention.head_count")
    if not layers or not width or not heads:
        return None
    tokens = metadata.get("tokenizer.ggml.tokens")
    hidden = _number(metadata, "feed_forward_length", 4 * width)
    used, experts = _number(metadata, "expert_used_count"), 0
    if used:
        rows = 2 * width + 2 * _number(metadata, "expert_feed_forward_length", hidden)
        shared = _number(metadata, "expert_shared_feed_forward_length")
        hidden = max(hidden, shared)  # the keys do not say whether layers without experts are there
        experts = used * rows + _number(metadata, "expert_count") + 32 + 4 * SIDE + (width if shared else 0)
    return Shape(
        layers,
        _number(metadata, "attention.head_count_kv", heads),
        _number(metadata, "attention.key_length", width // heads),
        heads,
        width,
        hidden,
        len(tokens) if isinstance(tokens, list) else 0,
        experts,
        getattr(ARCHITECTURES.get(metadata["general.architecture"]), "ropes", 1),
    )


def fit(
    name: str, metadata: dict, weights: int, free: int, wanted: int | None = None, bits: int = 16
) -> tuple[int | None, str | None]:
    """The context with which a model fits in memory.

    Parameters
    ----------
    name : str
        The model's, for messages.
    metadata : dict
        Of its file.
    weights : int
        Bytes of its tensors in the file.
    free : int
        Bytes that can be taken.
    wanted : int, optional
        Tokens; by default as many as the model was made for, or as its cache can hold in half of what the weights
        leave: the user's own work needs memory, too.
    bits : int
        Of the numbers in the cache.

    Returns
    -------
    (int or None, str or None)
        The tokens, and one line for the user if they are fewer than the model's own. None where the file does not say
        enough.

    Raises
    ------
    TooLargeError
        It does not fit.
    """
    weights = int(weights * PACKED)
    model, own = shape(metadata), _number(metadata, "context_length")
    if model is None or not own:
        if weights + RESERVE > free:
            raise TooLargeError(f"{name} needs {gb(weights + RESERVE)} of memory and {gb(free)} are free: {ADVICE}")
        return wanted, None
    if wanted is not None:
        if isinstance(wanted, int) and 0 < wanted <= own and model.needs(weights, wanted, bits) > free:
            raise TooLargeError(_too_large(name, model, weights, free, wanted, bits))
        return wanted, None  # what is out of range is for the engine to refuse
    least = min(LEAST_CONTEXT, own)
    fixed = weights + RESERVE
    context = max(least, model.context(weights, fixed + max(0, free - fixed) // 2, own, bits))
    if model.needs(weights, context, bits) > free:
        raise TooLargeError(_too_large(name, model, weights, free, least, bits))
    if context == own:
        return own, None
    return context, (
        f"The context is {context:,} tokens instead of the model's {own:,}, which would take "
        f"{gb(model.cache(own, bits))} of the {gb(free)} of memory that are free; "
        "--context or %config NbLLM.context sets another."
    )


def _too_large(name, model, weights, free, context, bits):
    fits = model.context(weights, free, context, bits)
    advice = f"{fits:,} tokens would fit" if fits >= LEAST_CONTEXT else ADVICE
    needed = gb(model.needs(weights, context, bits))
    return f"{name} with a context of {context:,} tokens needs {needed} of memory and {gb(free)} are free: {advice}"


def _number(metadata, key, default=0):
    value = metadata.get(f"{metadata.get('general.architecture')}.{key}", default)
    if isinstance(value, np.ndarray) and value.size:
        value = value.max()  # some files have one value for each layer
    return int(value) if isinstance(value, Real) and 0 < value < 1 << 32 else default
