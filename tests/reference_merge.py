"""The definition of merging, to compare the fast ways with."""

from nbllm.tokenizers.merge import NEVER


def merge_slowly(priority, symbols):
    """The definition: merge the leftmost pair of lowest priority until none is left."""
    while True:
        pairs = [(priority(*pair), i) for i, pair in enumerate(zip(symbols, symbols[1:]))]
        if not pairs or min(pairs)[0] == NEVER:
            return symbols
        i = min(pairs)[1]
        symbols = [*symbols[:i], symbols[i] + symbols[i + 1], *symbols[i + 2 :]]
