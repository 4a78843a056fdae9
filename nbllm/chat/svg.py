"""Small drawings as SVG: boxes and text in a grid of characters. All text is escaped; knows nothing of what it says."""

import unicodedata
from xml.sax.saxutils import escape

CHARACTER, ROW, SIZE, SMALL = 8.0, 16.0, 13, 9.75  # px: of a character's width, a line, and the letters
PAPER, INK, FAINT = "#ffffff", "#1f2328", "#424a53"  # an own background, so that it reads on dark pages, too
EDGE = 8.0  # px


class Drawing:
    """What was drawn so far.

    Parameters
    ----------
    columns : float
        Its width, in characters; its height is that of what is drawn.
    """

    def __init__(self, columns: float):
        self._parts, self._columns, self._rows = [], columns, 0.0

    def box(self, x, y, width, height, colour):
        """A box; x, y, width in characters and height in rows."""
        self._reach(x + width, y + height)
        self._parts.append(f'<rect x="{_x(x)}" y="{_y(y)}" width="{width * CHARACTER:.1f}" '
                           f'height="{max(1.0, height * ROW - 2):.1f}" rx="3" fill="{colour}"/>')  # fmt: skip

    def text(self, x, y, text, small=False, end=False):
        """Text whose foot is at row y, from x on, or up to it."""
        self._reach(x, y)
        self._parts.append(
            f'<text x="{_x(x)}" y="{_y(y) - 4:.1f}" font-size="{SMALL if small else SIZE}" '
            f'fill="{FAINT if small else INK}" text-anchor="{"end" if end else "start"}" xml:space="preserve">'
            f"{escape(clean(text))}</text>"
        )

    def svg(self) -> str:
        """The whole image."""
        width, height = self._columns * CHARACTER + 2 * EDGE, self._rows * ROW + 2 * EDGE
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="ui-monospace, Menlo, Consolas, monospace">'
            f'<rect width="100%" height="100%" rx="4" fill="{PAPER}"/>{"".join(self._parts)}</svg>'
        )

    def _reach(self, x, y):
        self._columns, self._rows = max(self._columns, x), max(self._rows, y)


def clean(text: str) -> str:
    """The text with a sign for whatever has no shape of its own, turns what is beside it, or may not stand in XML."""
    return "".join(map(_sign, text))


def width(text: str) -> int:
    """How many characters wide a text is; those of East Asia are two."""
    return sum(1 + (unicodedata.east_asian_width(char) in "WF") for char in text)


def _sign(char):
    code, category = ord(char), unicodedata.category(char)
    if code < 32:
        return chr(0x2400 + code)
    return "\ufffd" if category in ("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp") else char


def _x(x):
    return round(EDGE + x * CHARACTER, 1)


def _y(y):
    return round(EDGE + y * ROW, 1)
