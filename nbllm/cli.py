"""The shell's way: `nbllm chat`, `bench`, `info`, `models`, `cache`, `pull`, `install-kernel`; also `python -m nbllm`.

Only parses and prints; what it prints comes from the layers above it. Errors are one line on standard error.
"""

import argparse
import os
import sys
import time
from contextlib import suppress
from dataclasses import fields
from numbers import Integral
from pathlib import Path

import nbllm
from nbllm.errors import CONTROLS, NbLLMError, printable, why
from nbllm.runtime.options import Sampling

INTERRUPTED = 130  # exit status, as the shell has it for SIGINT


def main(argv=None) -> int:
    """Run a command; returns the exit status."""
    _mend_streams()
    arguments = vars(_parser().parse_args(argv))
    command = arguments.pop("command")
    try:
        command(**arguments)
        sys.stdout.flush()
    except NbLLMError as error:
        print(f"nbllm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("nbllm: stopped", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # else whoever read our output has gone
            print(f"nbllm: {printable(str(error))}: look at the disk, and where the output goes", file=sys.stderr)
        with suppress(OSError):  # it is no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the exit does not flush into it again
        return 1
    return 0


def chat(prompt, model, system, context, threads, cache_bits, **sampling):
    from nbllm.chat.conversation import Chat, Notice
    from nbllm.chat.thinking import Thought, dimmed
    from nbllm.chat.worker import Worker
    from nbllm.model import load
    from nbllm.text import Text
    from nbllm.runtime.events import Done

    Sampling(**sampling)  # a mistake in the options is told before the model is loaded
    prompt = _typed() if prompt == "-" else prompt

    def job(flag):
        with load(model, context, threads, stop_flag=flag, cache_bits=cache_bits) as loaded:
            yield from Chat(loaded, system, **sampling).stream(prompt, flag)

    worker = Worker()  # so that an interrupt need not wait for a step to end
    handle, thinking = worker.submit(job), False
    try:
        for event in handle:
            if isinstance(event, Thought):  # not on standard output, which has the answer alone
                text = dimmed(event.text.translate(CONTROLS)) if sys.stderr.isatty() else event.text
                print(text, end="", file=sys.stderr, flush=True)
                thinking = True
            elif thinking and isinstance(event, Text | Done):
                print("\n", file=sys.stderr, flush=True)
                thinking = False
            if isinstance(event, Text):
                print(event.text.translate(CONTROLS if sys.stdout.isatty() else {}), end="", flush=True)
            elif isinstance(event, Notice):
                print(f"nbllm: {event.text}", file=sys.stderr)
            elif isinstance(event, Done):
                print()
                if sys.stderr.isatty():
                    print(_footer(event.stats), file=sys.stderr)
    except KeyboardInterrupt:
        print(flush=True)
        raise
    finally:
        worker.close()


def info(model):
    from nbllm.chat.info import info
    from nbllm.model import load

    if model is None:
        print(info())
    else:
        with load(model) as loaded:
            print(info(loaded))


def bench(model, json, threads):
    from json import dumps

    from nbllm.bench.report import bench, text

    report = bench(model, threads, lambda line: print(f"nbllm: measuring {line}", file=sys.stderr))
    print(dumps(report, indent=2) if json else text(report))


def cache(action, name):
    from nbllm.catalogue import known
    from nbllm.catalogue.places import ENDINGS
    from nbllm.runtime import packed_cache

    try:
        folder = packed_cache.folder()
        entries, limit = (packed_cache.entries(folder), packed_cache.limit(folder)) if folder else ((), 0)
    except OSError as error:
        raise NbLLMError(f"the cache cannot be looked into: {why(error)}") from error
    if folder is None:
        raise NbLLMError("the cache is off, as NBLLM_CACHE says")
    if action is None:
        for entry in reversed(entries):
            used = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
            model = printable(entry.model or "unfinished")
            print(f"{model:32} {entry.size / 1e6:8,.0f} MB  used {used}  {entry.path.name}")
        total = sum(entry.size for entry in entries)
        print(f"{'total':32} {total / 1e6:8,.0f} MB  of {limit / 1e6:,.0f} MB in {folder}")
        return
    model = name and (known(name).file if known(name) else name)
    if model and model.lower().endswith(ENDINGS):
        model = Path(model).stem
    try:
        gone, kept = packed_cache.clear(folder, model)
    except OSError as error:
        raise NbLLMError(f"the cache in {folder} cannot be cleared: {why(error)}") from error
    if name and not gone + kept:
        raise NbLLMError(f"the cache has nothing of {name!r}; `nbllm cache` lists what it has")
    print(f"deleted {len(gone)} file{'s' * (len(gone) != 1)}, {sum(entry.size for entry in gone) / 1e6:,.0f} MB")
    for entry in kept:
        print(f"kept {printable(entry.model or 'unfinished')}, {entry.size / 1e6:,.0f} MB: a running process uses it")


def models():
    from nbllm.catalogue.listing import listing, text

    print(text(*listing()))


def pull(name):
    from nbllm.catalogue import DEFAULT, pull
    from nbllm.catalogue.connection import shown
    from nbllm.catalogue.progress import ProgressLine

    with ProgressLine(shown(name or DEFAULT.name)) as progress:
        path = pull(name, progress)
    print(path)


def install_kernel(**arguments):
    from nbllm.jupyter.install import install

    print(install(**{name: value for name, value in arguments.items() if value}))


def _typed():
    try:
        return sys.stdin.read()
    except (AttributeError, OSError):  # there is none, or it is a folder
        raise NbLLMError("standard input cannot be read: give the question itself instead of -") from None
    except UnicodeDecodeError as error:
        raise NbLLMError(f"standard input is no text in {error.encoding}: convert it first") from error


def _mend_streams():
    """Whatever is to be said can be: a closed stream drops it, and what an encoding does not have is escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _footer(stats):
    return (
        f"[{stats.prompt_tokens - stats.reused_tokens} tokens read at {stats.prefill_per_second:.0f}/s, "
        f"{stats.generated_tokens} written at {stats.decode_per_second:.0f}/s]"
    )


def _parser():
    parser = argparse.ArgumentParser(prog="nbllm", description="A large language model on your own processor.")
    parser.add_argument("--version", action="version", version=f"nbllm {nbllm.__version__}")
    commands = parser.add_subparsers(required=True)

    def add(command, help):
        name = command.__name__.replace("_", "-")
        added = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        added.set_defaults(command=command)
        return added

    asking = add(chat, "ask a question and print the answer as it comes")
    asking.add_argument("prompt", help="the question, or - for standard input")
    asking.add_argument("-m", "--model", help="a known model's name, or a path; the default model otherwise")
    asking.add_argument("-s", "--system", help="what the model is told first")
    asking.add_argument("--context", type=int, metavar="N", help="tokens that fit; by default what memory allows")
    asking.add_argument(
        "--cache-bits", type=int, choices=(16, 8), default=16, help="of a number in the cache; 8 takes half the memory"
    )
    asking.add_argument("--threads", type=int, metavar="N", help="one for each core otherwise")
    for option in fields(Sampling):
        kind = option.metadata.get("kind")
        how = {"action": "append"} if kind is None else {"type": _number(kind)}
        asking.add_argument(
            "--" + option.name.replace("_", "-"),
            metavar="TEXT" if kind is None else "N",
            default=argparse.SUPPRESS,
            help=f"{option.metadata['help']} (default {option.default or 'none'})",
            **how,
        )
    add(info, "show the processor, the kernels chosen for it, and a model's needs").add_argument(
        "model", nargs="?", metavar="MODEL", help="a known model's name, or a path"
    )
    measuring = add(bench, "measure how fast a model is here, and how fast this machine would let it be")
    measuring.add_argument("model", nargs="?", metavar="MODEL", help="a name or a path; the default model otherwise")
    measuring.add_argument("--threads", type=int, metavar="N", help="one for each core otherwise")
    measuring.add_argument("--json", action="store_true", help="print the figures as JSON")
    caching = add(cache, "show or clear what is kept of models that were laid out for the kernels")
    caching.add_argument("action", nargs="?", choices=["clear"], help="delete it; it will be made again when needed")
    caching.add_argument("name", nargs="?", metavar="MODEL", help="only what is kept of this model")
    add(models, "list the models that are here and those that can be fetched, and which of them fit in memory")
    add(pull, "fetch a model").add_argument(
        "name",
        nargs="?",
        metavar="NAME",
        help="as `nbllm models` lists it, or owner/repo[:QUANT] on the Hugging Face hub, or an address; otherwise the "
        "default model",
    )
    kernel = add(install_kernel, 'install the "Local LLM" kernel where Jupyter finds it')
    place = kernel.add_mutually_exclusive_group()
    place.add_argument("--user", action="store_true", help="for this user (the default)")
    place.add_argument("--sys-prefix", action="store_true", help="for this Python environment")
    place.add_argument("--prefix", metavar="PATH", help="under another prefix")
    kernel.add_argument("--model", metavar="NAME_OR_PATH", help="the model of its notebooks")
    kernel.add_argument("--name", help="the kernel's name on the command line")
    kernel.add_argument("--display-name", metavar="TEXT", help="the kernel's name in Jupyter's menus")
    return parser


def _number(kind):
    def number(text):
        return None if text.lower() == "none" else int(text) if kind is Integral else float(text)

    return number
