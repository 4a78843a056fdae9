"""From logits to the next token: the sampler that follows the sampling options (`options.py`).

Filters, their order (penalty, top-k, top-p, min-p, temperature) and their edge cases are llama.cpp's
(https://github.com/ggml-org/llama.cpp, src/llama-sampler.cpp); the draw is our own, so that a seed means the same
text everywhere. Knows nothing of text, models or caches.
"""

import math
import secrets

import numpy as np

from nbllm.errors import ModelFileError
from nbllm.runtime.options import Sampling
from nbllm.runtime.program import PEAK

# What is too large or too small for a number has a meaning here, whatever the user has NumPy do about it.
QUIET = {"over": "ignore", "under": "ignore"}


@np.errstate(**QUIET)
def penalise(logits, recent, penalty):
    """Make each id of `recent` less likely, once however often it occurs. In place.

    logits: float32 (vocab,); recent: ids. A negative logit is multiplied, since dividing would make it likelier.
    """
    ids = np.asarray(recent, np.int64)  # (n,); one that occurs twice is set to the same value twice
    seen = logits[ids]  # (n,) float32
    changed = np.where(seen <= 0, seen * penalty, seen / penalty)
    largest = np.finfo(np.float32).max
    # -inf is a token that is not allowed
    logits[ids] = np.where(np.isinf(seen), seen, np.clip(changed, -largest, largest))


def top_k(logits, peaks, k):
    """Ids of the k largest logits (all for k = 0), falling; of equal logits the smaller id comes first.

    logits: float32 (vocab,), peaks: float32 (vocab / PEAK,), the largest of each block -> int64 (min(k, vocab) or
    vocab,)
    """
    if not 0 < k < logits.size:
        return np.argsort(-logits, kind="stable")
    ids = candidates(logits, peaks, k)
    values = logits[ids]
    # (k or more,): a tie at the border brings more than k
    kept = np.flatnonzero(values >= np.partition(values, -k)[-k])
    return ids[kept[np.argsort(-values[kept], kind="stable")[:k]]]


def candidates(logits, peaks, k):
    """Ids, rising, among which the k largest logits are: those of the blocks whose peak is among the k largest
    peaks."""
    if k >= peaks.size:
        return np.arange(logits.size)
    blocks = np.flatnonzero(peaks >= np.partition(peaks, -k)[-k])  # (k or more,)
    ids = (blocks[:, None] * PEAK + np.arange(PEAK)).ravel()
    return ids[: logits.size - ids[-1] - 1] if ids[-1] >= logits.size else ids  # the last block may be shorter


@np.errstate(**QUIET)
def top_p(logits, p):
    """How many of the logits, float32 (n,) falling, make up the share p of the probability; at least one."""
    if p >= 1:
        return logits.size
    share = np.cumsum(probabilities(logits))  # (n,) float64
    return min(int(np.searchsorted(share, p)) + 1, logits.size)


def min_p(logits, p):
    """How many of the logits, float32 (n,) falling, have at least p times the largest probability; at least one."""
    if p <= 0:
        return logits.size
    return max(int(np.count_nonzero(logits >= logits[0] + math.log(p))), 1)


@np.errstate(**QUIET)
def probabilities(logits, temperature=1.0):
    """Softmax of logits / temperature. logits: float32 (n,), largest first -> float64 (n,)"""
    # a temperature near 0 may bring -inf, which is a probability of 0
    scaled = np.exp((logits.astype(np.float64) - logits[0]) / temperature)
    return scaled / scaled.sum()


@np.errstate(**QUIET)
def likeliest(logits, peaks, id, n):
    """The probability that the model gave to a token, and the n likeliest tokens with theirs.

    logits: float32 (vocab,), peaks: float32 (vocab / PEAK,) -> float, tuple of (id, float), falling
    """
    most = peaks.max()
    total = float(np.exp(logits - most).sum(dtype=np.float64))
    ids = top_k(logits, peaks, n)
    share = np.exp(logits[ids] - most, dtype=np.float64) / total
    return float(np.exp(logits[id] - most)) / total, tuple(zip(ids.tolist(), share.tolist()))


def check(peaks):
    """Raises ModelFileError where a logit is not finite, as the peaks (..., vocab / PEAK) of all tell."""
    if not np.isfinite(peaks).all():
        raise ModelFileError("the model computed a value that is not a number, so its file is probably damaged; "
                             "fetch it again, or use another model")


class Sampler:
    """Draws tokens, one random number each, from PCG64's raw stream (O'Neill 2014).

    NumPy promises that stream to stay as it is (NEP 19), and does not for the distributions made from it.

    Attributes
    ----------
    seed : int
        The one in use: `sampling.seed`, or one drawn now when that is None.
    """

    def __init__(self, sampling: Sampling, vocab: int):
        self.sampling = sampling
        self.seed = secrets.randbits(32) if sampling.seed is None else sampling.seed
        self._random = np.random.PCG64(self.seed)
        # scratch, (vocab,) filled up to whole blocks: a fresh copy a token costs more than the rest
        self._penalised = np.full((-(-vocab // PEAK), PEAK), -np.inf, np.float32)

    def pick(self, logits, peaks, recent, allowed=None) -> int:
        """The next token's id.

        Parameters
        ----------
        logits : float32 (vocab,)
            Left as they are.
        peaks : float32 (vocab / PEAK,)
            The largest of every PEAK logits, or not a number where one is not finite; left as they are.
        recent : list of int
            All tokens so far, or at least the last `repeat_window`.
        allowed : bool (vocab,), optional
            Which tokens may be chosen; at least one.

        Raises
        ------
        ModelFileError
            A logit is not finite.
        """
        options = self.sampling
        check(peaks)
        if allowed is not None:
            flat = self._penalised.ravel()[: logits.size]
            np.copyto(flat, logits)
            flat[~allowed] = -np.inf
            logits, peaks = flat, self._penalised.max(1)
        window = recent[-options.repeat_window:] if options.repeat_window else []
        if options.repeat_penalty != 1 and len(window):
            if allowed is None:
                np.copyto(self._penalised.ravel()[: logits.size], logits)
                logits, peaks = self._penalised.ravel()[: logits.size], peaks.copy()
            penalise(logits, window, options.repeat_penalty)
            blocks = np.array(window) // PEAK  # (n,)
            peaks[blocks] = self._penalised[blocks].max(1)
        if options.temperature == 0:
            block = int(peaks.argmax())
            return block * PEAK + int(logits[block * PEAK : (block + 1) * PEAK].argmax())
        ids = top_k(logits, peaks, options.top_k)  # (n,)
        ids = ids[: top_p(logits[ids], options.top_p)]
        ids = ids[: min_p(logits[ids], options.min_p)]
        share = np.cumsum(probabilities(logits[ids], options.temperature))  # (n,) float64
        draw = (self._random.random_raw() >> 11) * 2.0**-53  # in [0, 1), 53 bits
        return int(ids[np.searchsorted(share, draw * share[-1])])
