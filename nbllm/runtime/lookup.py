"""Guesses what comes next from what was there before, and learns whether guessing pays.

A step for a few tokens takes hardly longer than one for a single token, since the weights are read once. So where the
last tokens stood in the text before, what followed them there is put into the step along with the new token (prompt
lookup, Saxena 2023). Whatever the model would not have chosen is dropped: the text is the same, token for token,
because a token's logits do not depend on what else is in its step. Knows nothing of models; it is told what came of its
guesses.
"""

GRAM = 3  # tokens that must have stood together before
GUESSES = 3  # tokens put into a step besides the new one: a tile of the products is four
EXPLORE = 32  # of so many chances one is taken even when guessing does not pay, to see whether it does now
PACE = 0.2  # weight of the newest observation in the running means


class Lookup:
    """The tokens so far, and where each run of GRAM of them was last followed by what.

    Attributes
    ----------
    history : list of int
    """

    def __init__(self, ids):
        self.history = []
        self._after = {}  # GRAM tokens -> the place in history of what followed them last
        self._hits = 1.0  # running mean of guesses that came true in a step
        self._alone = self._together = None  # running means of the seconds of a step, without guesses and with them
        self._chances = 0
        for id in ids:
            self.push(id)

    def push(self, id):
        """One more token was read or written."""
        if len(self.history) >= GRAM:
            self._after[tuple(self.history[-GRAM:])] = len(self.history)
        self.history.append(id)

    def guess(self, most) -> list[int]:
        """At most `most` tokens that may come next; none if there is nothing to go by or it would not pay."""
        at = self._after.get(tuple(self.history[-GRAM:]))
        if at is None or not self._pays():
            return []
        return self.history[at : at + min(GUESSES, most)]

    def _pays(self):
        if self._alone is None or self._together is None:
            return self._alone is not None  # one step without guesses first, to know what it takes
        if (1 + self._hits) * self._alone > self._together:
            return True
        self._chances += 1
        return self._chances % EXPLORE == 0

    def learn(self, guesses, hits, seconds):
        """A step with so many guesses, of which `hits` came true, took so long."""
        if guesses:
            self._hits += PACE * (hits - self._hits)
            self._together = seconds if self._together is None else self._together + PACE * (seconds - self._together)
        else:
            self._alone = seconds if self._alone is None else self._alone + PACE * (seconds - self._alone)
