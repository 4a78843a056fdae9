"""All figures of one model file, beside the machine's limits: measured, and as text.

Every load is in a process of its own. Knows no other program, and writes no file.
"""

from dataclasses import asdict, dataclass
from datetime import date
from math import prod
from statistics import median

import nbllm
from nbllm.bench import machine, memory
from nbllm.bench.figures import FIGURES
from nbllm.bench.spawn import measure
from nbllm.catalogue import find
from nbllm.formats.open import open_model
from nbllm.runtime import ops

LOADS = 3  # of a file in the page cache; the median counts

SHOWN = {  # figure -> what it is, how it is written, and what of it a unit is
    "load_cold_s": ("load, file not in memory", "{:.2f} s", 1),
    "load_s": ("load", "{:.2f} s", 1),
    "first_token_cold_s": ("first token of a new process, file not in memory", "{:.2f} s", 1),
    "first_token_s": ("first token of a new process", "{:.2f} s", 1),
    "prefill_512_tok_s": ("prefill of 512 tokens", "{:,.0f} tokens/s", 1),
    "decode_tok_s": ("decode", "{:,.1f} tokens/s", 1),
    "decode_4096_tok_s": ("decode at 4,096 tokens of context", "{:,.1f} tokens/s", 1),
    "private_bytes": ("memory, its own", "{:,.0f} MB", 1e6),
    "mapped_bytes": ("memory, mapped from files", "{:,.0f} MB", 1e6),
}
LIMITS = {  # limit -> the same
    "read_bytes_s": ("reading of memory", "{:.1f} GB/s", 1e9),
    "int8_ops_s": ("8-bit products and sums", "{:,.0f} Gop/s", 1e9),
}


@dataclass(frozen=True)
class Work:
    """What a model's matrices ask of a machine.

    Attributes
    ----------
    bytes : int
        Of weights, in the file's own types, that are read for a token.
    weights, output_weights : int
        That every token is multiplied with; and those of the output matrix, which only a token with logits is.
    """

    bytes: int
    weights: int
    output_weights: int

    def per_token(self) -> dict[str, tuple[float, str]]:
        """Figure -> (what one token takes, of which limit)."""
        ops = 2 * (self.weights + self.output_weights / 512)
        return {
            "prefill_512_tok_s": (ops, "int8_ops_s"),
            "decode_tok_s": (self.bytes, "read_bytes_s"),
            "decode_4096_tok_s": (self.bytes, "read_bytes_s"),
        }


def work(gguf) -> Work:
    """The work of a model whose matrices all take part in every token."""
    matrices = {name: tensor for name, tensor in gguf.tensors.items() if len(tensor.shape) == 2}
    embedding = matrices.pop("token_embd.weight")  # a token takes one row of it, unless it is the output as well
    output = matrices.pop("output.weight", embedding)
    size = sum(tensor.nbytes for tensor in matrices.values()) + output.nbytes
    return Work(size, sum(prod(tensor.shape) for tensor in matrices.values()), prod(output.shape))


def fractions(figures, limits, work) -> dict[str, float]:
    """What part of the machine's limit each figure is that has one."""
    return {
        name: figures[name] * amount / limits[limit]
        for name, (amount, limit) in work.per_token().items()
        if figures.get(name) is not None
    }


def bench(model=None, threads=None, progress=lambda line: None) -> dict:
    """Measure a model.

    Parameters
    ----------
    model : str or path, optional
        As of `nbllm.load`, but nothing is fetched.
    threads : int, optional
        By default one for each physical core that this process may use.
    progress : callable
        Called with a line of text before every measurement.

    Returns
    -------
    dict
        JSON values: `figures` (None where one is missing), why they are `missing`, the machine's `limits`, the
        `fractions` of them, and what was measured where.

    Raises
    ------
    NbLLMError
        The model cannot be found or run.
    """
    path = find(model)
    threads = ops.threads()[0] if threads is None else threads
    where = machine.describe()  # before there is any load of our own

    progress("a first load")
    first = measure(path, threads, watch=True)  # it may have to pack the weights, so its time is no figure
    with open_model(path) as opened:
        size, file_bytes = work(opened), opened.size
    progress("a load with the file not in memory")
    for file in first.files:
        memory.forget(file)
    cold = measure(path, threads)
    progress(f"{LOADS} more loads")
    warm = [measure(path, threads) for _ in range(LOADS)]
    progress("the machine's limits")
    before = machine.limits(threads)
    speed = measure(path, threads, FIGURES, progress=lambda figure: progress(SHOWN[figure][0]))
    progress("the machine's limits again")
    limits = {name: max(value, before[name]) for name, value in machine.limits(threads).items()}

    figures = dict.fromkeys(SHOWN) | speed.values
    missing = dict(speed.missing)
    for name in ("load", "first_token"):
        figures[f"{name}_s"] = median(load.values[f"{name}_s"] for load in warm)
        if (cold.from_disk or 0) > size.bytes / 2:
            figures[f"{name}_cold_s"] = cold.values[f"{name}_s"]
        else:
            missing[f"{name}_cold_s"] = "the system kept the file in its page cache"
    if first.memory:
        peak = first.memory | speed.memory
        figures |= {"private_bytes": peak.private, "mapped_bytes": peak.mapped}
    else:
        missing |= dict.fromkeys(("private_bytes", "mapped_bytes"), "this system does not tell")
    return {
        "date": date.today().isoformat(),
        "nbllm": nbllm.__version__,
        "kernels": ops.variant().name,
        "threads": threads,
        "machine": where,
        "model": {"file": path.name, "bytes": file_bytes} | {"work": asdict(size)},
        "figures": figures,
        "missing": missing,
        "limits": limits,
        "fractions": fractions(figures, limits, size),
    }


def text(report) -> str:
    """A report as lines, without an end of line after the last."""
    where = report["machine"]
    load = "" if where["load"] is None else f", load before {where['load']:.1f}"
    lines = [
        f"{report['model']['file']}, {report['model']['work']['bytes'] / 1e6:,.0f} MB of weights a token",
        f"nbllm {report['nbllm']}, kernels {report['kernels']}, {report['threads']} threads of "
        f"{where['processors']} processors, {where['processor']}, {report['date']}{load}",
        "",
    ]
    for name, (title, how, unit) in LIMITS.items():
        lines.append(f"{'limit: ' + title:50}{how.format(report['limits'][name] / unit)}")
    for name, (title, how, unit) in SHOWN.items():
        value = report["figures"][name]
        if value is None:
            shown = f"not measured: {report['missing'][name]}"
        else:
            shown = how.format(value / unit)
        if name in report["fractions"]:
            shown += f", {report['fractions'][name]:.0%} of the limit"
        lines.append(f"{title:50}{shown}")
    return "\n".join(lines)
