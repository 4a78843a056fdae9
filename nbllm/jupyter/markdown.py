r"""A reply's text as Markdown that any notebook shows as it was meant, finished or not.

Models write \( \) and \[ \] for mathematics, $ for money, and HTML for anything; a notebook's Markdown eats the first,
takes the second for mathematics and the third for markup. Outside code, mathematics gets the dollars that notebooks
know, other dollars are escaped, and `<` is an entity, so that HTML stays text. Images become links: showing a reply
must not fetch anything. A link leads to the web, to an address of mail or to a file beside the notebook: JupyterLab
trusts the output of a cell that it ran, so that a `javascript:` link would run with all that the user may do. Any other
stays text. Knows nothing of models and displays.
"""

import re

from nbllm.chat.code import FENCE, LINE, closes

# Lengths are bounded so that a hostile reply costs no more than an honest one. A dollar opens mathematics when no space
# follows it, and closes it when no space precedes and no digit follows: the rule of Pandoc's tex_math_dollars.
_INLINE = re.compile(
    r"""(?P<code> (?<!`)(?P<ticks>`+)(?!`) [^\n]{1,2000}? (?<!`)(?P=ticks)(?!`) )
      | \\\( [ ]* (?P<round>  [^\n]{1,1000}?) [ ]* \\\)
      | \\\[      (?P<square> (?:(?!\n[ \t]*\n)[\s\S]){1,2000}?) \\\]
      | (?P<display> \$\$ (?:(?!\n[ \t]*\n)[^$]){1,2000} \$\$ )
      | (?P<inline> \$(?=[^\s$])[^$\n]{0,1000}(?<![\s\\])\$(?!\d) )
      | (?P<kept> \\[^\n] )
      | (?P<dollar> \$ ) | (?P<less> < ) | (?P<image> !(?=\[) )
      | (?P<link> \](?=[(:]) (?! [(:][ \t]{0,9}\n?[ \t]{0,9} (?: https?:// | mailto: ) | \([\w./\#-]{0,300}\) ) )""",
    re.VERBOSE,
)

# A dollar that is money. A backslash alone is not enough: Markdown takes it away, and then JupyterLab and nbconvert
# look for mathematics in what is left. They do not look across an element, so this brings one, with nothing to see in
# it.
DOLLAR = "\\$*\u2060*"


def _math(text, dollars):
    # were it no mathematics, no link either
    text = text.replace("<", r"\lt ").replace("](", "] (").replace("]:", "] :")
    return dollars + text + dollars


_REWRITE = {
    "code": lambda text: text,
    "round": lambda text: _math(text, "$"),
    "square": lambda text: _math(text, "$$"),
    "display": lambda text: _math(text[2:-2], "$$"),
    "inline": lambda text: _math(text[1:-1], "$"),
    "kept": lambda text: {r"\<": "&lt;", r"\$": DOLLAR}.get(text, text),
    "dollar": lambda text: DOLLAR,
    "less": lambda text: "&lt;",
    "image": lambda text: r"\!",
    "link": lambda text: r"\]",
}


def _inline(match):
    kind = match.lastgroup if match.lastgroup != "ticks" else "code"
    return _REWRITE[kind](match[kind])


def markdown(text: str) -> str:
    """`text` rewritten for a notebook. A code fence that is open at the end is closed,
    so that what follows is not code."""
    parts, prose = [], []  # prose: lines since the last fence
    closing = None  # the pattern that closes the open fence
    for line in LINE.findall(text.replace("\r\n", "\n").replace("\r", "\n")):
        if closing is None and (match := FENCE.match(line)):
            parts += [_INLINE.sub(_inline, "".join(prose)), line]
            prose.clear()
            fence = match["fence"]
            closing = closes(fence)
            end = re.sub(r"[^\s>]", " ", match["indent"]) + fence
        elif closing is None:
            prose.append(line)
        else:
            parts.append(line)
            if closing.match(line):
                closing = None
    parts.append(_INLINE.sub(_inline, "".join(prose)))
    if closing is not None:
        parts += ["" if text.endswith("\n") else "\n", end]
    return "".join(parts)


def escaped(text: str) -> str:
    """Literal text for Markdown: a model's, a file's or a variable's name may hold anything."""
    return re.sub(r"([\\`*_{}\[\]<>$#|!~&])", r"\\\1", text)


def table(head, rows, numbers=()) -> str:
    """A Markdown table of literal cells; the columns named in `numbers` are set to the right."""
    lines = [head, ["--:" if name in numbers else "---" for name in head]]
    lines += [[escaped(cell.replace("\n", " ")) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
