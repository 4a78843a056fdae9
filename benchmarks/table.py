"""Results as Markdown. Measures nothing."""

from statistics import median

from nbllm.bench.report import LIMITS, SHOWN

COMPARED = {"prefill_512_tok_s": "prefill of 512 tokens", "decode_tok_s": "decode"}
INSTALL = "`make peers` installs the other engines"


def medians(speed):
    """Figure -> its median over the rounds; empty for an engine that was not measured."""
    return {figure: median(speed[figure]) for figure in COMPARED if figure in speed}


def best_peer(speeds, figure):
    """The highest median that another engine has, or None."""
    others = [medians(speed)[figure] for name, speed in speeds.items() if name != "nbllm" and figure in speed]
    return max(others, default=None)


def table(results):
    """The text of results.md."""
    first = results["models"][0]
    machine = first["machine"]
    memory = f", {machine['memory_bytes'] / 2**30:.0f} GiB of memory" if machine["memory_bytes"] else ""
    load = "" if machine["load"] is None else f"; load before {machine['load']:.1f}"
    versions = ", ".join(sorted({version for model in results["models"] for version in model["versions"]}))
    lines = [
        "# Speed",
        "",
        f"{machine['processor']} ({', '.join(machine['features'])}), {first['threads']} threads of "
        f"{machine['processors']} processors{memory}, {machine['system']}; {first['date']}{load}.",
        f"nbllm {first['nbllm']} with its kernels for {first['kernels']}{'; ' + versions if versions else ''}.",
        "",
        f"Tokens per second; rounds, in which the engines took turns: {results['rounds']}, of which medians are shown.",
        "",
        "| file | engine | prefill of 512 tokens | decode |",
        "|---|---|--:|--:|",
    ]
    notes = {}
    for model in results["models"]:
        lines += _rows(model, notes)
    lines += ["", *(f"- {name}: {why}" for name, why in notes.items())]
    lines += ["", "![the same against the machine's limits](results.svg)", "", *_alone(results["models"]), ""]
    return "\n".join(lines)


def _rows(model, notes):
    file, speeds = model["model"]["file"], model["speeds"]
    for name, speed in speeds.items():
        if "absent" in speed:
            notes[name] = f"not installed ({speed['absent']}); {INSTALL}."
        elif "refused" in speed:
            yield f"| {file} | {name} | does not run this file | |"
            notes[f"{name} with {file}"] = speed["refused"]
        else:
            found = medians(speed)
            yield f"| {file} | {name} | {found['prefill_512_tok_s']:,.0f} | {found['decode_tok_s']:,.1f} |"
    ratios = []
    for figure in COMPARED:
        best = best_peer(speeds, figure)
        ratios.append(f"**{medians(speeds['nbllm'])[figure] / best:.2f}**" if best else "no other engine")
    yield f"| {file} | **nbllm over the best other** | {' | '.join(ratios)} |"


def _alone(models):
    """nbllm's own figures: a column for each file."""
    yield "| nbllm | " + " | ".join(model["model"]["file"] for model in models) + " |"
    yield "|---|" + "--:|" * len(models)
    for name, (title, how, unit) in SHOWN.items():
        cells = [_cell(model, name, how, unit) for model in models]
        yield f"| {title} | {' | '.join(cells)} |"
    for name, (title, how, unit) in LIMITS.items():
        cells = [how.format(model["limits"][name] / unit) for model in models]
        yield f"| this machine's limit: {title} | {' | '.join(cells)} |"


def _cell(model, name, how, unit):
    value = model["figures"][name]
    if value is None:
        return model["missing"][name]
    part = f", {model['fractions'][name]:.0%} of the limit" if name in model["fractions"] else ""
    return how.format(value / unit) + part
