"""Results as an SVG picture: prefill and decode of each engine, as parts of what the machine could do."""

from xml.sax.saxutils import escape

from table import COMPARED, medians

from nbllm.bench.report import Work

WIDTH, LEFT, GAP, TOP = 960, 190, 40, 70  # of the picture; before the bars; between the panels; above the bars
PANEL = (WIDTH - LEFT - 2 * GAP) // 2
ROW, BAR, HEAD = 24, 16, 34
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f }
.head { font-weight: 600 }
.small { font-size: 11px; fill: #57606a }
.other { fill: #afb8c1 } .ours { fill: #1a7f64 } .axis { stroke: #57606a; stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 }
  .other { fill: #59636e } .ours { fill: #2ea58b } .axis { stroke: #9198a1 }
}
"""


def limits(model):
    """Figure -> tokens per second at the machine's limit."""
    amounts = Work(**model["model"]["work"]).per_token()
    return {figure: model["limits"][amounts[figure][1]] / amounts[figure][0] for figure in COMPARED}


def plot(results):
    """The text of results.svg."""
    models = [(model, [(name, speed) for name, speed in model["speeds"].items() if "absent" not in speed])
              for model in results["models"]]  # fmt: skip
    parts = [
        medians(speed)[figure] / limits(model)[figure]
        for model, engines in models for _, speed in engines for figure in COMPARED if figure in speed
    ]  # fmt: skip
    scale = (PANEL - 80) / max(1, *parts)  # pixels for all of the limit; a number must fit behind the longest bar
    height = TOP + sum(HEAD + ROW * len(engines) for _, engines in models) - HEAD + 24
    machine = results["models"][0]["machine"]["processor"]
    shown = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">',
        f"<title>Speed on {escape(machine)}</title>",
        f"<style>{STYLE}</style>",
    ]
    for i, title in enumerate(COMPARED.values()):
        x = LEFT + i * (PANEL + GAP)
        shown += [
            _text(x, 22, title, "head"),
            _text(x, 40, "tokens per second; the dashed line is this machine's limit", "small"),
            f'<line class="axis" x1="{x + scale:.1f}" x2="{x + scale:.1f}" y1="{TOP - 18}" y2="{height - 12}"/>',
        ]
    y = TOP
    for model, engines in models:
        shown.append(_text(8, y, model["model"]["file"].removesuffix(".gguf"), "head"))
        for i, limit in enumerate(limits(model).values()):
            shown.append(_text(LEFT + i * (PANEL + GAP) + scale + 4, y, f"{limit:,.0f}", "small"))
        y += 12
        for name, speed in engines:
            shown.append(_text(LEFT - 8, y + BAR - 3, name, end=True))
            for i, figure in enumerate(COMPARED):
                shown += _bar(LEFT + i * (PANEL + GAP), y, name, speed, figure, scale / limits(model)[figure])
            y += ROW
        y += HEAD - 12
    return "\n".join([*shown, "</svg>", ""])


def _bar(x, y, name, speed, figure, scale):
    if figure not in speed:
        yield _text(x + 4, y + BAR - 3, "does not run this file", "small")
        return
    value = medians(speed)[figure]
    kind = "ours" if name == "nbllm" else "other"
    yield f'<rect class="{kind}" x="{x}" y="{y}" width="{value * scale:.1f}" height="{BAR}"/>'
    yield _text(x + value * scale + 4, y + BAR - 3, f"{value:,.0f}")


def _text(x, y, text, kind="", end=False):
    anchor = ' text-anchor="end"' if end else ""
    return f'<text x="{x:.1f}" y="{y}" class="{kind}"{anchor}>{escape(text)}</text>'
