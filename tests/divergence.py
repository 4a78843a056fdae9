"""How far an engine's next-token distributions are from the reference's, over real text. Knows no engine.

The measure is llama.cpp's (tools/perplexity, --kl-divergence): the text is cut into chunks that are read independently,
each from an empty context. Here every position of a chunk counts, the first ones with little context too.
"""

from pathlib import Path

import numpy as np
from reference_llama import Reference

from nbllm.formats.open import open_model
from nbllm.tokenizers import load_tokenizer

TEXT = Path(__file__).parent / "data" / "alice.txt"
POSITIONS, CHUNK = 2048, 512


def token_ids(path, text=TEXT, positions=POSITIONS):
    """The first `positions` token ids of a text file, by the model file's own tokenizer."""
    with open_model(path) as file:
        ids = load_tokenizer(file.metadata).encode(text.read_text("utf-8"), special=False)
    if len(ids) < positions:
        raise ValueError(f"{text} has {len(ids)} tokens, fewer than {positions}")
    return ids[:positions]


def measure(path, ids, engine_logits, chunk=CHUNK):
    """Divergence of an engine's logits from those of the dequantised weights in float32.

    Parameters
    ----------
    path : Path
        The model file.
    ids : list of int
        Token ids of the text; their number is a multiple of `chunk`.
    engine_logits : callable
        From a list of ids, read from an empty context, to float32 (n, vocab).

    Returns
    -------
    dict
        In nats: mean, median, 99th percentile and maximum of the positions' divergences; and `same_top`, the share of
        positions where both put the same token first.
    """
    reference = Reference(path)
    divergences, same_top = [], []
    for start in range(0, len(ids), chunk):
        part = ids[start : start + chunk]
        expected, logits = reference.logits(part), engine_logits(part)  # both (chunk, vocab) float32
        divergences.append(kl_divergence(expected, logits))
        same_top.append(expected.argmax(1) == logits.argmax(1))
    divergences = np.concatenate(divergences)  # (positions,) float64
    return {
        "positions": len(divergences),
        "mean": float(divergences.mean()),
        "median": float(np.median(divergences)),
        "p99": float(np.quantile(divergences, 0.99)),
        "max": float(divergences.max()),
        "same_top": float(np.concatenate(same_top).mean()),
    }


def kl_divergence(reference, logits):
    """Kullback-Leibler divergence of next-token distributions from the reference's, in nats.

    Parameters
    ----------
    reference, logits : float32 (n, vocab)

    Returns
    -------
    float64 (n,)
    """
    log_p, log_q = _log_softmax(reference), _log_softmax(logits)  # (n, vocab) float64
    return (np.exp(log_p) * (log_p - log_q)).sum(-1)


def _log_softmax(logits):
    x = logits.astype(np.float64)
    x -= x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))
