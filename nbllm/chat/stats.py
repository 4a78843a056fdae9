"""How fast the turns of a conversation were, and how much of each was in the cache already: as rows, and as a picture.

Knows nothing of where it is shown.
"""

from nbllm.chat.svg import Drawing
from nbllm.chat.transcript import Transcript

HEAD = ("turn", "read", "reused", "written", "guessed", "first token", "tokens/s", "question")
NUMBERS = HEAD[:-1]
FIRST = 40  # characters of a question that are shown
MOST = 60  # turns that are drawn, the last
TALL = 4.0  # rows of a bar
BAR = "#5b8fc7"
PANELS = (  # title, what of the stats is drawn, and how it is written
    ("tokens/s", lambda stats: stats.decode_per_second, "{:.0f}"),
    ("seconds to the first token", lambda stats: stats.prefill_seconds, "{:.1f}"),
    ("share of the prompt reused", lambda stats: stats.reused_tokens / max(1, stats.prompt_tokens), "{:.0%}"),
)


def rows(transcript: Transcript) -> list[tuple[str, ...]]:
    """What HEAD names, of each exchange; nothing but the question where it is not known how the reply came."""
    made = []
    turns = zip(transcript.messages[::2], transcript.messages[1::2], strict=True)
    for number, (question, answer) in enumerate(turns, 1):
        stats, told = getattr(answer, "stats", None), ("",) * 6
        if stats:
            read = (stats.prompt_tokens - stats.reused_tokens, stats.reused_tokens)
            counts = (*read, stats.generated_tokens, stats.guessed_tokens)
            told = (*map(str, counts), f"{stats.prefill_seconds:.2f} s", f"{stats.decode_per_second:.1f}")
        words = " ".join(question["content"][: 4 * FIRST].split())
        made.append((str(number), *told, words if len(words) <= FIRST else f"{words[:FIRST]}..."))
    return made


def plot(transcript: Transcript) -> str | None:
    """An image, SVG, with a bar for each turn whose stats are known; None where there is no such turn."""
    answers = enumerate(transcript.messages[1::2], 1)
    known = [(number, answer.stats) for number, answer in answers if getattr(answer, "stats", None)][-MOST:]
    if not known:
        return None
    drawing, y = Drawing(max(40.0, 4.0 * len(known) + 1)), 0.0
    for title, value, form in PANELS:
        drawing.text(0.5, y + 1, title)
        values = [value(stats) for _, stats in known]
        most = max(values) or 1
        for place, each in enumerate(values):
            x, high = 0.5 + 4 * place, max(0.15, TALL * each / most)
            drawing.box(x, y + 2.2 + TALL - high, 3.2, high, BAR)
            drawing.text(x, y + 2.1 + TALL - high, form.format(each), small=True)
        y += TALL + 2.6
    for place, (number, _) in enumerate(known):
        drawing.text(0.5 + 4 * place, y + 0.6, str(number), small=True)
    return drawing.svg()
