"""Turns that the panel takes, by its messages as a browser sends them, and by Python. Knows nothing of other turns."""

import json
import time

from kernel.test_panel import ask as click
from soak.expected import Fault
from soak.talk import begun
from soak.words import LONG, PROMPTS, limit


def clicked(talk, **content):
    talk.note(f"panel: {json.dumps(content)[:140]}")
    return click(talk.kernel, **content)


def panel_send(talk):
    mark = talk.mark()
    if talk.random.random() < 0.5:
        clicked(talk, kind="set", name="max_tokens", value=talk.random.choice((2, 4, 8)))
        clicked(talk, kind="send", text=f"{mark} {talk.random.choice(PROMPTS)}")
    else:
        talk.run(f"handle = shown.send({mark + ' Hello.'!r}, max_tokens={limit(talk)})")
    (job,) = talk.only(talk.settle(), 1)
    talk.outcome(job, mark)


def panel_stop(talk):
    mark = talk.mark()
    clicked(talk, kind="set", name="max_tokens", value=2000)
    clicked(talk, kind="send", text=f"{mark} {LONG}")
    time.sleep(talk.random.random() * 0.5)
    clicked(talk, kind="stop")
    (job,) = talk.only(talk.settle(), 1)
    talk.outcome(job, mark)
    talk.set("max_tokens", 8)


def panel_rerun(talk):
    if not talk.expected.current:
        return panel_send(talk)
    mark = talk.expected.current[-1][0]
    talk.set("max_tokens", 8)
    clicked(talk, kind="rerun")
    (job,) = talk.only(talk.settle(), 1)
    talk.outcome(job, mark, again=True)


def panel_edit(talk):
    if not talk.expected.current:
        return panel_send(talk)
    number, mark = talk.random.randrange(len(talk.expected.current)), talk.mark()
    exchanges = talk.expected.current[:number]
    talk.set("max_tokens", 8)
    clicked(talk, kind="edit", number=number, text=f"{mark} In other words.")
    (job,) = talk.only(talk.settle(), 1)
    talk.expected.begin(talk.state["name"], exchanges, leave=False)
    talk.outcome(job, mark)


def panel_undo(talk):
    clicked(talk, kind="undo")
    (job,) = talk.only(talk.settle(), 1)
    if talk.expected.current:
        talk.expected.undo(1)
    elif "cannot be taken back" not in (job["error"] or ""):
        raise Fault(f"there was nothing to take back, and the panel's job ended with {job['error']}")


def panel_clear(talk):
    clicked(talk, kind="clear")
    talk.only(talk.settle(), 1)
    talk.expected.begin(talk.state["name"])


def panel_other(talk):
    clicked(talk, kind="hello")
    clicked(talk, kind="set", name="temperature", value=-1)
    clicked(talk, kind="send", text=" ")
    clicked(talk, kind="load", path=f"{talk.folder}/nothing.jsonl")
    (job,) = talk.only(talk.settle(), 1)
    if "cannot be read" not in (job["error"] or ""):
        raise Fault(f"the panel loaded what is not there: {job}")


def panel_and_cell(talk):
    """The panel's reply is on its way when a cell asks."""
    first, second = f"{talk.mark()} Hello.", talk.mark()
    talk.run(f"handle = shown.send({first!r}, max_tokens={talk.random.randint(2, 40)})")
    cell = talk.run(f"%%chat --max-tokens 4\n{second} And?")
    one, two = talk.only(talk.settle(), 2)
    talk.outcome(one, first, question=first)
    talk.outcome(two, second)
    if cell.reply["status"] != "ok" and not two["error"]:
        raise Fault(f"the cell ended with {cell.error}")


def stopped_behind_panel(talk):
    """A cell that waits behind the panel's reply is interrupted; the reply goes on."""
    first, second = f"{talk.mark()} {LONG}", talk.mark()
    talk.run(f"handle = shown.send({first!r}, max_tokens=150, temperature=1)")
    talk.interrupted(f"%%chat --max-tokens 2000\n{second} {LONG}", begun)
    one, two = talk.only(talk.settle(), 2)
    if one["reason"] == "stopped" or (one["error"] or "").startswith("Stopped"):
        raise Fault("an interrupt of the cell stopped the panel's reply")
    talk.outcome(one, first, question=first)
    talk.outcome(two, second)


PANEL_TURNS = {
    panel_send: 8, panel_stop: 4, panel_rerun: 3, panel_edit: 2, panel_undo: 3, panel_clear: 1, panel_other: 2,
    panel_and_cell: 4, stopped_behind_panel: 3,
}  # fmt: skip
