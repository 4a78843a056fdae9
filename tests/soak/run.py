"""Hours of one Jupyter kernel: thousands of turns drawn by chance, each compared with what must come of it.

    python run.py [--hours 2] [--turns N] [--seed N] [--model FILE]

Turn n of a seed is always of the same kind, but what is there by then depends on when interrupts came. No time decides
anything. After a fault, which is told with what was done last, the session goes on; the exit code is then 1.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kernel import kernels  # noqa: E402
from soak.expected import Fault  # noqa: E402
from soak.talk import Lost, Talk  # noqa: E402
from soak.turns import TURNS, at_rest  # noqa: E402
from soak.watch import Watch, growth, summary  # noqa: E402
from tiny_gguf import write_llama  # noqa: E402

kernels.PATIENCE = 600
REST = 1 / 12  # hours


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--turns", type=float, default=float("inf"), help="most of them")
    parser.add_argument("--seed", type=int, default=None, help="drawn, and told, where none is given")
    parser.add_argument("--model", type=Path, help="by default the default model, which is fetched if need be")
    given = parser.parse_args()
    if given.model is None:
        from nbllm.catalogue.pull import pull

        given.model = pull()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it, and what they start does, too
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(soak(given.model.resolve(), Path(folder), seed, given.hours, given.turns))


def soak(model, folder, seed, hours, turns):
    """How many faults there were, at most 1."""
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        os.environ[name] = str(folder / name.lower())
    os.environ |= {"NBLLM_CACHE": str(folder / "packed"), "PYTHONSAFEPATH": "1"}
    (folder / "other.gguf").symlink_to(model)
    models = {"default": model, "other": folder / "other.gguf", "tiny": write_llama(folder / "tiny.gguf", context=2048)}
    print(f"seed {seed}, {hours:g} hours, {model.name}", flush=True)
    kinds, weights = list(TURNS), list(TURNS.values())
    done, faults, restarts = Counter(), Counter(), 0
    talk = Talk(models, folder)
    talk.start()
    watch = Watch(lambda: talk.kernel.manager.provisioner.pid,
                  lambda: f"{done.total()} turns, {faults.total()} faults, {talk.actions[-1][:60]!r}")  # fmt: skip
    rested, last = -REST, False
    while not last:
        talk.turn += 1
        last = watch.hours() > hours or talk.turn >= turns
        talk.random = random.Random(f"{seed} {talk.turn}")
        (kind,) = talk.random.choices(kinds, weights)
        if last or watch.hours() - rested > REST:
            kind, rested = at_rest, watch.hours()
        done[kind.__name__] += 1
        try:
            kind(talk)
            talk.expected.compare(talk.state)
            if kind is at_rest:
                watch.rest(talk.kernel.value("soak_heap()"))
        except Lost as lost:
            talk.seen["reply of ipykernel lost"] += 1
            print(f"turn {talk.turn}, {kind.__name__}: {lost}", flush=True)
            recovered(talk)
        except Exception as error:
            faults[kind.__name__] += 1
            tell(talk, kind, error)
            if not recovered(talk):
                restarts += 1
                talk.start()
    watch.close()
    said, cells = talk.kernel.value("soak_kept_text()")
    talk.close()
    report(done, faults, restarts, talk, watch, said, cells)
    return min(1, faults.total())


def tell(talk, kind, error):
    where = "" if isinstance(error, Fault) else "".join(traceback.format_exception(error))
    line = f"FAULT in turn {talk.turn}, {kind.__name__}: {error}\n{where}  after:"
    print(line, *talk.actions, sep="\n    ", flush=True)


def recovered(talk):
    """Take what is there as expected; False if the Jupyter kernel is no more of use, and was ended."""
    try:
        talk.state = talk.kernel.value("soak_state(True)")
        talk.expected.adopt(talk.state)
        return True
    except Exception as error:
        print(f"the Jupyter kernel is started anew: {error}", flush=True)
        talk.close()
        return False


def report(done, faults, restarts, talk, watch, said, cells):
    print(f"\n{done.total()} turns in {watch.hours():.2f} hours, {faults.total()} faults, {restarts} restarts")
    for kind, count in done.most_common():
        print(f"  {kind}: {count}" + f", {faults[kind]} faults" * (kind in faults))
    print("what came:", ", ".join(f"{count} {what}" for what, count in talk.seen.most_common()))
    if watch.samples:
        print("each minute:", *summary(watch.samples), sep="\n")
    print("at rest:", *summary(watch.at_rest), sep="\n")
    for what, samples in (("each minute", watch.samples), ("at rest", watch.at_rest)):
        slope = growth(samples)
        told = "too short a time to say" if slope is None else f"{slope:+.1f} MB an hour"
        print(f"own memory in the second half, {what}: {told}")
    print(f"all conversations hold {said / 1e6:.2f} MB of text, the cells that were run {cells / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
