"""The chat panel: a widget that shows the conversation of this Jupyter kernel and asks in it.

What the browser does calls a method here, which only hands a job to the session; what comes of it goes to the browser
from the worker's thread, as numbered pieces of text; a browser that missed one asks for all. So a reply goes on while a
cell computes, and where the Jupyter kernel takes what the browser says on a thread of its own (a subshell), all else
does. Knows nothing of HTML: the browser gets plain text, and makes elements of it, never markup (`static/`).
"""

import secrets
import threading
import time
from contextvars import copy_context
from dataclasses import fields
from pathlib import Path

import anywidget
from IPython import get_ipython
from IPython.display import display
from traitlets import TraitError

from nbllm.catalogue import available
from nbllm.errors import NbLLMError, OptionError, Stopped, brief, quoted
from nbllm.jupyter.config import settings
from nbllm.jupyter.display import Output
from nbllm.jupyter.interpolate import interpolate, names
from nbllm.jupyter.markdown import escaped, markdown
from nbllm.jupyter.sendable import sendable
from nbllm.jupyter.session import session
from nbllm.runtime.options import Sampling
from nbllm.text import Text

STATIC = Path(__file__).parent / "static"
SCRIPTS = ("tex.js", "math.js", "markdown.js", "panel.js")  # each knows those before it; together they are one module
SETTINGS = ("temperature", "top_p", "max_tokens", "system")  # that the panel has controls for
INTERVAL, PAUSE = 0.1, 1.0  # seconds between updates, at least, and until text is sent that has not PIECE tokens
PIECE = 6
KNOWN = (NbLLMError, Stopped, TraitError)  # errors whose text says all
NOTHING = "Nothing was said yet."
TRANSCRIPT = {"nbllm": {"state": "transcript"}}  # metadata of its output


class _Widget(anywidget.AnyWidget):
    _esm = "\n".join((STATIC / name).read_text(encoding="utf-8") for name in SCRIPTS)
    _css = STATIC / "panel.css"

    def __repr__(self):  # stands in its place where there are no widgets
        return "The chat panel; its transcript follows."


class _Shown(Output):
    """One reply on its way to the browser, which is sent what is new of it."""

    def __init__(self, panel, question, filled=None, again=False):
        super().__init__(filled)
        self.question, self.again = question, again
        self._panel = panel
        self._text = self._thought = self._told = self._counted = 0  # how much was sent: characters, notices, tokens
        self._sent = None

    def event(self, event):
        # Each message of Jupyter's costs some 700 bytes beside its text, so text waits for more of it,
        # but not for long.
        hurried = self._painted + PAUSE > time.monotonic() and len(self._tokens) < self._counted + PIECE
        self._pause = PAUSE if hurried else INTERVAL
        super().event(event)

    def paint(self):
        with self._panel._lock:
            self._paint()

    def _paint(self):
        new = {
            "text": self.text[self._text :],
            "think": self.think[self._thought :],
            "notices": self._notices[self._told :],
        }
        state = self._state()
        if any(new.values()) or state != self._sent:
            self._text, self._thought, self._told, self._sent = (
                len(self.text), len(self.think), len(self._notices), state,
            )  # fmt: skip
            self._counted = len(self._tokens)
            self._panel._tell("reply", **{name: value for name, value in (new | state).items() if value})

    def _state(self):
        waiting = not (self.text or self.think)
        state = {"status": self.status(), "share": self._share} if waiting else {}
        return {**state, "footer": self.footer(), "done": self.doing is None}

    def whole(self):
        """All that was sent, for a browser that has just come; the rest is sent to it, too."""
        sent = {
            "text": self.text[: self._text],
            "think": self.think[: self._thought],
            "notices": self._notices[: self._told],
        }
        return {"question": self.question, "again": self.again, **sent, **self._state()}


class Panel:
    """The conversation of this Jupyter kernel, and what can be done with it; `nbllm.panel()` makes one.

    Displayed, it is a panel to chat in, and below it a transcript that stays in the notebook. Its methods do what its
    buttons do, and return at once where nothing is said of waiting.
    """

    def __init__(self, shell):
        self._shell = shell
        self._config = settings(shell)
        self._session = session(self._config)
        self._shown = None  # the reply that is being written for the panel
        self._seen = None  # the messages that the browser has
        self._used = None  # tokens in the context after the last reply of the panel
        self._views = []  # display handles of transcripts
        self._number = 0  # of the last message to the browser
        self._lock = threading.RLock()  # what is told, and that it was told, change together: two threads tell
        self._open()
        self._session.listeners.append(self._refresh)

    def _open(self):
        self.widget, self._closed = _Widget(), False
        if hasattr(self.widget.comm, "_reply_subshell_for"):
            # ipykernel 7.4 hands what the browser says to the thread that told it something last: a cell may hold that.
            self.widget.comm._reply_subshell_for = lambda data, named: named
        self.widget.on_msg(self._asked)
        self.widget.comm.on_close(self._close)

    def _close(self, message):
        self._closed = True

    def _ipython_display_(self):
        # a browser, or Python, has closed the widget, which ends it for good
        if self._closed or self.widget.comm is None:
            self._open()
        display(self.widget)
        name = f"nbllm-{secrets.token_hex(8)}"
        self._views.append(display(self._transcript(), raw=True, metadata=TRANSCRIPT, display_id=name))

    def send(self, text: str, **sampling):
        """Ask; returns a handle (`chat.worker.Handle`) whose `wait` waits for the reply.

        Parameters
        ----------
        text : str
            `{name}` in it puts in what the model should know of a variable.
        **sampling
            Fields of `Sampling`, for this reply alone.

        Raises
        ------
        NbLLMError
            The message is empty, names what there is not, or an option is wrong.
        """
        return self._asking(text, sampling)()

    def stream(self, text: str, **sampling):
        """Ask, and wait: yields the reply's text as it comes."""
        for event in self.send(text, **sampling):
            if isinstance(event, Text):
                yield event.text

    def stop(self):
        """Stop what is running; what was written is kept."""
        self._session.stop()

    def undo(self, count: int = 1):
        """Take back the last exchanges."""
        return self._change(lambda shelf: shelf.undo(count))

    def rerun(self, **sampling):
        """Ask the last question again, in place of its reply."""
        question = self._session.shelf.current.question()
        return self._submit(self._session.ask_again(self._session.sampling(**sampling)), question, again=True)

    def edit(self, number: int, text: str, **sampling):
        """Ask question `number`, counted from 0, in other words, in a copy of the conversation that ends before it."""

        def copy(shelf):
            count = shelf.current.exchanges
            if not isinstance(number, int) or not 0 <= number < count:
                raise OptionError(f"there is no question {quoted(number)}: the conversation has {count}, from 0 on")
            return shelf.branch(undo=count - number)

        return self._asking(text, sampling, self._session.change(copy))()

    def clear(self):
        """Start a new conversation; the one before stays on the shelf."""
        return self._change(lambda shelf: shelf.new())

    def save(self, path):
        return self._change(lambda shelf: shelf.save(path))

    def load(self, path):
        return self._submit(self._session.load(path))

    def serialize(self) -> list[dict]:
        """The messages, as chat templates take them."""
        system = self._session.shelf.current.system
        return [
            *([{"role": "system", "content": system}] if system else []),
            *map(dict, self._session.shelf.current.messages),
        ]

    def _change(self, how):
        return self._submit(self._session.change(how))

    def _asking(self, text, sampling, first=None):
        """What asks, when it is called; first : a job that is run before, of which the browser is then told."""
        prompt, filled = interpolate(text, names(self._shell), self._config.describe)
        if not prompt.strip():
            raise OptionError("the message is empty; write one")
        question, context = self._session.ask(prompt, self._session.sampling(**sampling)), copy_context()

        def job(stop):
            if first is not None:
                yield from first(stop)
                context.run(self._refresh)
            yield from question(stop)

        return lambda: self._submit(job, prompt, filled, draft=text)

    def _submit(self, job, question=None, filled=None, again=False, draft=None):
        """Run a job of the session; its events go to the browser, and to whoever holds the handle.

        draft : what the user wrote, which the browser gets back if nothing comes of it.
        """
        shown = _Shown(self, question, filled, again)
        context = copy_context()  # in which ipykernel finds the message that what is sent belongs to

        def told(stop):
            failed = None
            context.run(self._begin, shown)
            try:
                for event in job(stop):
                    context.run(shown.event, event)
                    yield event
            except (Exception, Stopped) as error:
                failed = error
                raise
            finally:
                context.run(self._end, shown, failed, draft)

        if question is not None:
            self._tell("begin", question=question, again=again, waiting=self._session.busy)
        return self._session.submit(told)

    def _begin(self, shown):
        if shown.question is not None:
            with self._lock:
                self._shown = shown
                self._tell("begin", question=shown.question, again=shown.again)

    def _end(self, shown, failed, draft):
        with self._lock:
            shown.finish()
            self._shown = None
            nothing = shown.question is not None and not (shown.text or shown.think)
            if nothing and failed is None:  # the prompt was being read, or the model ended at once
                failed = Stopped(shown.stopped() if shown.finish_reason != "end" else "The reply is empty.")
            if failed is not None:  # the last word: what is told of the end would take its place
                self._fail(failed, ended=True, draft=draft if nothing else None)
        if shown.stats is not None and not nothing:
            self._used = shown.stats.prompt_tokens + shown.stats.generated_tokens

    def _refresh(self):
        """Called when a job of the session has ended, this panel's or another's, on the worker's thread."""
        messages, seen = self._session.shelf.current.messages, self._seen or []
        if messages is not self._seen:
            same = next(
                (n for n, (a, b) in enumerate(zip(messages, seen)) if a is not b), min(len(messages), len(seen))
            )
            with self._lock:
                self._seen = messages
                self._tell("all", **self._all(same))
            for view in self._views:
                view.update(self._transcript(), raw=True, metadata=TRANSCRIPT)
        else:
            self._tell("head", **self._head())

    def _all(self, same=0):
        """The messages from number `same` on, which the browser has not, and all else."""
        return {
            "from": same,
            "messages": [
                {"role": message["role"], "text": message["content"], "think": message.get("reasoning_content", "")}
                for message in self._session.shelf.current.messages[same:]
            ],
            "pending": self._shown.whole() if self._shown else None,
            **self._head(),
        }

    def _head(self):
        model = self._session.model
        return {
            "conversation": self._session.shelf.name,
            "model": model.name if model and not model.closed else self._config.model,
            "context": {"used": self._used, "of": model.context if model and not model.closed else None},
            "settings": {name: getattr(self._config, name) for name in SETTINGS},
        }

    def _transcript(self):
        """For the notebook as it is saved: closed in a front end that shows the panel, readable in all."""
        transcript = self._session.shelf.current
        parts = []
        for message in transcript.messages:
            who = "You" if message["role"] == "user" else "Model"
            parts.append(f"**{who}**\n\n{markdown(message['content'])}")
        plain = "\n\n".join(f"{m['role']}: {m['content']}" for m in transcript.messages) or NOTHING
        body = "\n\n".join(parts) or escaped(NOTHING)
        fold = f"<details>\n<summary>Transcript</summary>\n\n{body}\n\n</details>"
        return sendable({"text/plain": plain, "text/markdown": fold})

    def _tell(self, kind, **content):
        with self._lock:
            self._number += 1
            self.widget.send(sendable({"kind": kind, "number": self._number, **content}))

    def _fail(self, error, ended, draft=None):
        """ended : whether what the browser waits for has ended with this."""
        text = str(error) if isinstance(error, KNOWN) else brief(error)
        self._tell("error", text=text, wrong=not isinstance(error, Stopped), ended=ended, draft=draft)

    def _asked(self, widget, content, buffers):
        """What the browser wants. A mistake is told there, and what is nobody's mistake raised as well."""
        self.widget.send({"kind": "taken", "view": content.get("view")})  # by then, the page says that it waits
        try:
            _DO[content["kind"]](self, content)
        except (Exception, Stopped) as error:
            asked = content["kind"] == "send"
            if content["kind"] == "set":
                self._tell("head", **self._head())  # the setting is as it was
            self._fail(error, ended=asked, draft=content["text"] if asked else None)
            if not isinstance(error, KNOWN):
                raise

    def _set(self, content):
        name, value = content["name"], content["value"]
        if name not in SETTINGS:
            raise OptionError(f"the panel has no setting {name!r}")
        if name != "system":
            self._config.sampling().updated(**{name: value})  # raises what is wrong with it
        setattr(self._config, name, value)
        if name == "system":
            self._change(lambda shelf: shelf.instruct(value))

    def _hello(self, content):
        models = sorted({found.name for found in available()})
        with self._lock:
            self._tell("all", **self._all(), whole=True, models=models,
                       help={option.name: option.metadata["help"] for option in fields(Sampling)})  # fmt: skip


_DO = {
    "hello": Panel._hello,
    "send": lambda panel, content: panel.send(content["text"]),
    "stop": lambda panel, content: panel.stop(),
    "undo": lambda panel, content: panel.undo(),
    "rerun": lambda panel, content: panel.rerun(),
    "edit": lambda panel, content: panel.edit(content["number"], content["text"]),
    "clear": lambda panel, content: panel.clear(),
    "save": lambda panel, content: panel.save(content["path"]),
    "load": lambda panel, content: panel.load(content["path"]),
    "model": lambda panel, content: panel._submit(panel._session.switch(content["name"])),
    "set": Panel._set,
}


def panel() -> Panel:
    """The panel to chat in, which shares the conversation, the model and the settings of `%%chat`;
    it can be shown in several places.

    Raises
    ------
    NbLLMError
        This is no notebook.
    """
    shell = get_ipython()
    if not hasattr(shell, "kernel"):
        raise NbLLMError("the panel needs a notebook; in a terminal, `nbllm chat` asks, and %%chat in IPython")
    current = session(settings(shell))
    made = (
        listener.__self__
        for listener in current.listeners
        if isinstance(getattr(listener, "__self__", None), Panel)
    )
    return next(made, None) or Panel(shell)
