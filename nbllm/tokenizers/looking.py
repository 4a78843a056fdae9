"""Long work that may be broken off: whoever asks for it gives `look`, which is called now and then, and may raise.

Refuses to know who wants that, and why.
"""

from itertools import islice

OFTEN = 256  # words, or what takes about as long, between two looks


def unwatched():
    """The `look` of those who wait."""


def looking(items, look):
    """The items as they are, with a look now and then."""
    return items if isinstance(items, list) and len(items) <= OFTEN else _looking(items, look)


def _looking(items, look):
    items = iter(items)
    while some := list(islice(items, OFTEN)):
        look()
        yield from some
