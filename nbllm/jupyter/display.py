"""One reply in the output of the cell that asked: it grows while the model writes, and ends with a quiet footer.

A notebook gets display updates under an id of their own, as Markdown and plain text, never HTML; a terminal gets the
text as it comes. Built from events alone; knows no model and no thread. Called from the cell's own thread only.
"""

import sys
import time
from dataclasses import asdict

from IPython.display import DisplayHandle

from nbllm import __version__
from nbllm.catalogue import Pulling
from nbllm.catalogue.progress import amount
from nbllm.chat.code import fenced
from nbllm.chat.conversation import Notice
from nbllm.chat.kept import Copying
from nbllm.chat.map import Mapped
from nbllm.chat.reply import Reply
from nbllm.chat.thinking import Thought, dimmed
from nbllm.chat.tokens import Tokens
from nbllm.chat.worker import Queued
from nbllm.errors import CONTROLS
from nbllm.jupyter.markdown import escaped, markdown
from nbllm.jupyter.sendable import sendable
from nbllm.jupyter.session import Answering, Loading
from nbllm.text import Text
from nbllm.runtime.events import Done, Packing, Prefill, Reading

INTERVAL = 0.06  # seconds between updates: more often freezes browsers, which render the whole reply each time
# Each update of a notebook carries the whole text again, so a reply is shown as often as this many bytes a token allow,
# and every PAUSE seconds in any case. ENVELOPE is what Jupyter's messages have beside the text.
RATE, PAUSE, ENVELOPE = 110, 2.0, 1000
ONE_AHEAD = "waiting for the request before it"
_CUT = {  # finish reasons that are told; a reply that ended by itself says nothing
    "length": "cut at {sampling.max_tokens} tokens (--max-tokens)",
    "context": "cut: the context of {context} tokens is full",
    "stopped": "stopped",
}


class Output:
    """What is known of a reply so far. Subclasses paint it.

    Attributes
    ----------
    text : str
        The reply as far as it is there.
    think : str
        What the model thought before it.
    doing : str
        What happens while there is no text.
    began : bool
        The conversation has the question, so a stop now waits for the last events.
    stats, finish_reason
        Of the last event; None before it.
    """

    def __init__(self, filled=None):
        self.text = self.think = ""
        self.doing = "waiting for the model"
        self.began = False
        self.stats = None
        self.finish_reason = None
        self._share = None  # how much of `doing` is done, 0 to 1
        self._filled = filled or {}  # what was put into the prompt: whether it is the value itself
        self._notices = []
        self._tokens = []
        self._since = None  # when the first of many rows was answered, and how many were then
        self._asked = None  # Answering
        self._painted = -float("inf")
        self._pause = INTERVAL

    def event(self, event):
        """Take one event, and paint if it is time."""
        can_wait = self._TAKE[type(event)](self, event)
        now = time.monotonic()
        if not can_wait or self._due(now - self._painted):
            self.paint()
            self._painted = time.monotonic()
            self._pause = max(INTERVAL, 4 * (self._painted - now))

    def _due(self, waited):
        """Whether it is time to paint, so many seconds after the last time."""
        return waited >= self._pause

    def finish(self):
        """Paint the last state. Without a `Done` among the events, what was being done is taken away."""
        self.doing = self._share = None
        self.paint()

    def reply(self) -> Reply | None:
        """The reply as an object; None before the end."""
        if self.stats is None:
            return None
        seed, tokens, schema = self._asked.sampling.seed, Tokens(self._tokens), self._asked.schema
        return Reply(self.text, self.stats, self.finish_reason, seed, self.think.strip(), tokens, schema)

    def footer(self) -> str:
        """Model, counts, speed, seed, and why the reply was cut if it was; empty before the end."""
        if self.stats is None:
            return ""
        stats, sampling = self.stats, self._asked.sampling
        cut = _CUT.get(self.finish_reason, "").format(sampling=sampling, context=self._asked.context)
        parts = [
            self._asked.model,
            f"{stats.prompt_tokens - stats.reused_tokens} tokens read, {stats.reused_tokens} reused, "
            f"{stats.generated_tokens} written",
            f"{stats.decode_per_second:.1f} tokens/s" if stats.decode_per_second else "",
            f"seed {sampling.seed}" if sampling.temperature else "",
            *(_with(what, whole, self._filled) for what, whole in (("the value", True), ("a description", False))),
            cut,
        ]
        return " · ".join(part for part in parts if part)

    def metadata(self) -> dict:
        """For the output's metadata: whether the text is there yet, and at the end all that made this reply."""
        if self.stats is None:
            return {"nbllm": {"state": "writing" if self.text or self.think else "waiting"}} if self.doing else {}
        asked = {"version": __version__, "model": self._asked.model, "fingerprint": self._asked.fingerprint}
        speed = {"tokens_per_second": round(self.stats.decode_per_second, 2), "finish_reason": self.finish_reason}
        thought = {"think": self.think.strip()} if self.think else {}
        fits = {"schema": self._asked.schema.json} if self._asked.schema else {}
        made = {**asked, **fits, "sampling": asdict(self._asked.sampling), **asdict(self.stats), **speed, **thought}
        return sendable({"nbllm": {"state": "done", **made}})

    def stopped(self) -> str:
        """What to tell the user who stopped this reply."""
        if self.stats is not None and (self.text or self.think):
            return f"Stopped after {self.stats.generated_tokens} tokens; the partial reply is kept."
        return f"Stopped while {self.doing}." if self.doing else "Stopped before the reply began."

    def status(self) -> str:
        """What is being done, in words; empty when nothing is."""
        if self.doing is None:
            return ""
        return self.doing if self._share is None else f"{self.doing}: {self._share:.0%}"

    def paint(self):
        """Show the present state; the last time, `doing` is None."""
        raise NotImplementedError

    # Each takes an event and returns whether it is enough to paint with a later one.

    def _queued(self, event):
        self.doing = f"waiting for the {event.ahead} requests before it" if event.ahead > 1 else ONE_AHEAD

    def _pulling(self, event):
        return self._moving(f"downloading {event.name} ({amount(event.total)})", event)

    def _loading(self, event):
        self.doing, self._share = f"loading {event.name}", None

    def _packing(self, event):
        return self._moving("laying out weights", event)

    def _reading(self, event):
        return self._moving("reading weights", event)

    def _copying(self, event):
        return self._moving(event.doing, event)

    def _moving(self, doing, event):
        new, self.doing, self._share = self._share is None, doing, event.done / event.total
        return not new

    def _answering(self, event):
        self.doing, self._share, self._asked = "reading the prompt", None, event

    def _prefill(self, event):
        self.began = True
        self._share = (event.done - event.reused) / max(1, event.total - event.reused)
        return True

    def _text(self, event):
        first, self.text = not self.text, self.text + event.text
        self._tokens += event.tokens
        return not first

    def _thought(self, event):
        first, self.think = not self.think, self.think + event.text
        self._tokens += event.tokens
        return not first

    def _mapped(self, event):
        self.began = True
        if self._since is None:
            self._since = time.monotonic(), event.done
        (begun, before), now = self._since, time.monotonic()
        self.doing, self._share = f"answering, {event.done} of {event.total} rows", event.done / max(1, event.total)
        if event.done > before:
            rate = (event.done - before) / (now - begun)
            self.doing += f", {rate:.1f} a second, {clock((event.total - event.done) / rate)} left"
        return True

    def _notice(self, event):
        self._notices.append(event.text)

    def _done(self, event):
        self.stats, self.finish_reason = event.stats, event.finish_reason
        self._painted = float("inf")  # `finish` follows, and paints the end at once
        return True

    _TAKE = {
        Queued: _queued, Pulling: _pulling, Loading: _loading, Packing: _packing, Reading: _reading, Copying: _copying,
        Answering: _answering, Mapped: _mapped, Prefill: _prefill, Thought: _thought, Text: _text, Notice: _notice,
        Done: _done,
    }  # fmt: skip


class NotebookOutput(Output):
    """Display updates; only the last stays in the saved notebook.

    While the model writes, they have the Markdown alone, and what is new of the plain text in the metadata.
    """

    _handle = None
    _sent = None  # the last bundle, and whether it was the last of all
    _plain = ""  # as far as it was sent while the model wrote
    _bytes = 0  # sent since then, about

    def paint(self):
        data, plain = self._bundle()
        state = data, self.doing is None  # the last one has all, though the text be the same
        if state == self._sent:
            return
        metadata, self._sent = self.metadata(), state
        if self.doing is not None and (self.text or self.think):
            if plain.startswith(self._plain):  # else a notice came above it
                metadata["nbllm"]["new"] = plain[len(self._plain) :]
                data = {"text/markdown": data["text/markdown"]}
            self._plain, self._bytes = plain, self._bytes + self._size()
        self.send(data, metadata)

    def send(self, data, metadata):
        """Show this in place of what is shown."""
        if self._handle is not None:
            self._handle.update(data, raw=True, metadata=metadata)
        elif data["text/plain"]:
            self._handle = DisplayHandle()  # before it is shown: an interrupt may come in between
            self._handle.display(data, raw=True, metadata=metadata)

    def _size(self):
        return ENVELOPE + len(self.text) + len(self.think)

    def _due(self, waited):
        affordable = self._bytes + self._size() <= RATE * len(self._tokens)
        return super()._due(waited) and (not self._tokens or affordable or waited >= PAUSE)

    def _bundle(self):
        """The reply as Markdown and plain text; and the latter."""
        written = self.text or self.think
        thought = self.think.strip("\n")
        above = [line for line in (*self._notices, "" if written else self.status()) if line]
        plain = "\n\n".join(part for part in (*above, _quoted(thought), self.text) if part)
        quiet = [f"*{escaped(line)}*" for line in above]
        footer = f"*{escaped(self.footer())}*" if self.footer() else ""
        text = fenced(self.text, "json") if self.text and self._asked.schema else markdown(self.text)
        body = [*quiet, _quoted(markdown(thought)), text, footer]
        plain = sendable(plain)
        return {"text/plain": plain, "text/markdown": sendable("\n\n".join(part for part in body if part))}, plain


class TerminalOutput(Output):
    """The text as it comes, what is thought before it dimmed or quoted, then the footer on a line of its own."""

    _shown = _thought_shown = 0  # characters of text, of thought
    _told = 0  # notices

    def paint(self):
        tty = sys.stdout.isatty()
        parts = ["\r\x1b[K"] if tty and not self._shown + self._thought_shown else []  # away with the status line
        parts += [f"[{notice}]\n" for notice in self._notices[self._told:]]
        parts.append(self._new_thought(tty))
        if self.text:
            parts.append("\n\n" if self.think and not self._shown else "")
            parts.append(self.text[self._shown:].translate(CONTROLS))
        elif tty and not self.think:
            parts.append(self.status())
        if self.doing is None and (self.text or self.think):
            parts.append("\n")
        if self.footer():
            parts.append(f"[{self.footer()}]\n".translate(CONTROLS))
        self._told, self._shown, self._thought_shown = len(self._notices), len(self.text), len(self.think)
        sys.stdout.write(sendable("".join(parts)))
        sys.stdout.flush()

    def _new_thought(self, tty):
        if len(self.think) == self._thought_shown:
            return ""
        new = self.think[self._thought_shown :].translate(CONTROLS)
        return dimmed(new) if tty else ("" if self._thought_shown else "> ") + new.replace("\n", "\n> ")


def _quoted(text):
    """As a quotation, in Markdown as in plain text."""
    return "\n".join(f"> {line}" for line in text.split("\n")) if text else ""


def _with(what, whole, filled):
    names = ", ".join(name for name in filled if filled[name] is whole)
    return f"with {what} of {names}" if names else ""


def output(shell, filled=None) -> Output:
    """The output that suits the front end of this IPython shell."""
    return (NotebookOutput if hasattr(shell, "kernel") else TerminalOutput)(filled)


def clock(seconds: float) -> str:
    """A time as people read it: 1:02:03, or 2:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
