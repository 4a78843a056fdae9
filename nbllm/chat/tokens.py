"""The tokens of a reply, to look at: each in the colour of its probability, above what else was likely.

A notebook gets an image (SVG), in which whatever a model wrote is nothing but text, and a plain table beside it. Knows
nothing of models.
"""

from nbllm.chat.svg import Drawing, clean, width

MOST = 200  # tokens that are drawn; the others are counted
SHOWN = 3  # alternatives that are drawn below a token
LINE = 100  # characters
TEXT = 24  # characters of a token that are shown
STEPS = ((0.9, "#d7e8f7"), (0.6, "#e9f0dd"), (0.3, "#fbedc8"), (0.1, "#fbd9b5"), (0.0, "#f5b8a8"))  # from, colour
SIGNS = {ord(" "): "·", ord("\n"): "⏎", ord("\t"): "⇥"}
HEAD = ("token", "probability", "instead")


class Tokens(tuple):
    """Tokens as they were generated. Those whose probabilities were asked for have `text`, `probability` and
    `alternatives`, each of these with `id`, `text` and `probability`."""

    @property
    def told(self) -> bool:
        """Whether the probabilities are there."""
        return bool(self) and all(token.probability is not None for token in self)

    def _repr_svg_(self):
        return self.svg() if self.told else None

    def _repr_pretty_(self, printer, cycle):
        printer.text(self.table() if self.told else repr(self))

    def table(self) -> str:
        """A line for each token: its text, its probability, and the likeliest others with theirs."""
        rows = [HEAD] + [
            (_shown(token.text), f"{token.probability:.1%}", "  ".join(_instead(token))) for token in self[:MOST]
        ]
        first = max(width(row[0]) for row in rows)
        lines = [f"{row[0]}{' ' * (first - width(row[0]))}  {row[1]:>11}  {row[2]}".rstrip() for row in rows]
        return "\n".join(lines + self._more())

    def svg(self) -> str:
        """The same as an image, which reads on dark and on light."""
        drawing, x, y, height = Drawing(LINE), 0.0, 0.0, 2 + SHOWN
        for token in self[:MOST]:
            lines = [_shown(token.text), f"{token.probability:.0%}", *_instead(token)[:SHOWN]]
            size = max(width(lines[0]), *(0.75 * width(line) for line in lines[1:])) + 1  # characters
            if x and (x + size > LINE):
                x, y = 0.0, y + height
            drawing.box(x, y, size, height, next(colour for least, colour in STEPS if token.probability >= least))
            drawing.text(x + 0.5, y + 1, lines[0])
            for row, line in enumerate(lines[1:], 2):
                drawing.text(x + 0.5, y + 0.35 + 0.8 * row, line, small=True)
            x += size + 0.3
            if "\n" in token.text:
                x, y = 0.0, y + height
        for line in self._more():
            drawing.text(0.5, y + height + 1, line, small=True)
        return drawing.svg()

    def _more(self):
        return [f"... and {len(self) - MOST} more"] if len(self) > MOST else []


def _shown(text):
    """A token's text, what cannot be seen in it made visible, and no more of it than fits."""
    text = clean(text.translate(SIGNS))
    return text if len(text) <= TEXT else f"{text[:TEXT]}…"


def _instead(token):
    return [f"{_shown(each.text)} {each.probability:.0%}" for each in token.alternatives if each.id != token.id]
