"""A Jupyter kernel and what its conversations should be: what each turn does goes through here, and is compared.

Says of a cell, or of what the panel asked, whether it came out as it may. Knows nothing of which turns there are.
"""

import queue
import re
from collections import Counter, deque

from kernel.kernels import Kernel
from soak.expected import IN_KERNEL, Expected, Fault

DROPPED = re.compile(r"the oldest (\d+) exchanges? w")
LATE = 30  # seconds
KEPT = "the partial reply is kept"


class Lost(Exception):
    """An interrupt came between the end of a cell and ipykernel's reply, which was then never sent."""


class SoakKernel(Kernel):
    """Allows what the panel tells of a job that goes on after its cell has ended."""

    def __init__(self):
        super().__init__()
        self.ended = set()  # cells that have

    def ignores(self, message):
        transcript = message["content"].get("metadata") == {"nbllm": {"state": "transcript"}}
        panel = transcript or message["msg_type"] == "comm_msg"
        return super().ignores(message) or (panel and message["parent_header"].get("msg_id") in self.ended)


class Talk:
    """
    Attributes
    ----------
    random
        Of this turn.
    expected : Expected
    settings : dict
        What was set, by name.
    state : dict
        Of the Jupyter kernel, as of the last `settle`.
    seen : Counter
        What came of questions.
    """

    def __init__(self, models, folder):
        self.models, self.folder = models, folder
        self.random, self.turn = None, 0
        self.actions = deque(maxlen=10)
        self.seen = Counter()
        self.written = {}  # what must be written again, by all that it depends on
        self.names = 0
        self.kernel = None

    def start(self):
        """A Jupyter kernel, with nothing said."""
        self.kernel = SoakKernel().__enter__()
        self.expected, self.settings, self.state = Expected(), {}, None
        self.files = {}  # saved conversations: name -> exchanges
        self.ok("%load_ext nbllm\nimport nbllm")
        self.set("model", str(self.models["default"]))
        self.ok(IN_KERNEL)
        self.ok("shown = nbllm.panel()\nshown")
        self.state = self.kernel.value("soak_state()")

    def close(self):
        self.kernel.__exit__()

    # ---- what is done

    def run(self, code):
        return self.begin(code).finish()

    def begin(self, code):
        self.note(code)
        cell = self.kernel.start(code)
        self.kernel.ended.add(cell.id)
        return cell

    def note(self, action):
        self.actions.append(f"{self.turn}: {action if len(action) < 160 else action[:150] + ' ...'}")

    def interrupted(self, code, when):
        """A cell that is interrupted when this holds of it, unless it has ended."""
        cell = self.begin(code).until(lambda cell: when(cell) or idle(cell))
        if idle(cell):
            return cell.finish()
        self.note("interrupt")
        self.kernel.interrupt()
        cell.until(idle)
        for _ in range(LATE):  # ipykernel sends the reply before it is idle, so it is there
            try:
                message = self.kernel.client.get_shell_msg(timeout=1)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") == cell.id:
                cell.reply = message["content"]
                return cell
        raise Lost(f"{code[:60]!r} has no reply")

    def ok(self, code):
        cell = self.run(code)
        if cell.reply["status"] != "ok":
            raise Fault(f"{code[:60]!r} ended with {cell.reply.get('ename')}: {cell.reply.get('evalue')}")
        return cell

    def refused(self, code, name, words=""):
        """A mistake: its error is one line, and nothing has changed."""
        cell = self.run(code)
        line = "\n".join(cell.error) if cell.of("error") else ""
        if not line.startswith(name) or words not in line or "\n" in line:
            raise Fault(f"{code[:60]!r} should be refused with {name}: {words}, and ended with {line!r}")
        return cell

    def set(self, name, value):
        self.ok(f"%config NbLLM.{name} = {value!r}")
        self.settings[name] = value

    def mark(self):
        """Words that no other question has."""
        self.names += 1
        return f"Q{self.turn}-{self.names}:"

    def settle(self):
        """Wait for all jobs, and return what came of those since the last time."""
        self.state = self.kernel.value("soak_state()")
        self.kernel.put_aside.clear()
        return self.state["jobs"]

    # ---- what came of it

    def asked(self, cell, mark, new=False, again=False):
        """A cell asked the question that has `mark` in it, or the last one again."""
        (job,) = self.only(self.settle(), 1)
        line = "\n".join(cell.error) if cell.of("error") else ""
        text = self.outcome(job, mark, new, again)
        status, ename = cell.reply["status"], cell.reply.get("ename")
        shown = answer_of(cell)
        if text and not shown.endswith(text):
            raise Fault(f"the cell shows {shown[-80:]!r}, and the conversation has {text[-80:]!r}; {line}")
        if status == "ok" and job["error"]:
            raise Fault(f"the cell ended well, and its job with {job['error']}")
        if ename == "Stopped" and line != "Stopped." and bool(text) != (KEPT in line):  # or at its very end
            raise Fault(f"the cell says {line!r}, and {text[:60]!r} was written")
        if status == "error" and ename not in ("Stopped", "ContextFullError"):
            raise Fault(f"the question ended with {line}")
        return text

    def outcome(self, job, mark, new=False, again=False, question=None):
        """What became of one job that asked; the conversations are then as expected, or it is a fault.

        question : the whole of it, where it is not the last of the conversation.
        """
        text, error, state = job["text"], job["error"] or "", self.state
        dropped = sum(int(found[1]) for notice in job["notices"] if (found := DROPPED.search(notice)))
        full = error.startswith("ContextFullError")
        if error and not error.startswith("Stopped") and not (full and self.may_be_full()):
            raise Fault(f"a question ended with {error}")
        if new and (text or state["name"] != self.expected.name):  # it may have been stopped before there was a new one
            self.expected.begin(state["name"])
        if text:
            if question is None:
                question = self.expected.current[-1][0] if again else state["last"] and state["last"][0]
            if question is None or mark not in question:
                raise Fault(f"{mark} was asked, and the last question is {question and question[:60]!r}")
            self.expected.asked(question, text, dropped, again)
        elif not error and job["reason"] not in ("end", "stop", "length", "stopped"):
            raise Fault(f"nothing was written, and the reason is {job['reason']}")
        self.seen["context full" if full else "stopped" if error or job["reason"] == "stopped" else
                  "answered" if text else "empty reply"] += 1  # fmt: skip
        return text

    def may_be_full(self):
        return self.settings.get("overflow") == "stop" or self.settings.get("context") is not None or self.on("tiny")

    def on(self, model):
        return self.state["model"] == str(self.models[model])

    def only(self, jobs, count):
        if len(jobs) != count:
            raise Fault(f"{len(jobs)} jobs ran, and {count} should have")
        return jobs

    def told(self, cell):
        """The name that a line about the conversation tells."""
        found = re.search(r"Conversation (.+?) goes on after (\d+) exchange", answer_of(cell))
        if not found:
            raise Fault(f"the cell tells nothing of a conversation: {answer_of(cell)!r}")
        return found[1], int(found[2])


def idle(cell):
    return bool(cell.of("status")) and cell.of("status")[-1]["execution_state"] == "idle"


def replies(cell):
    """The last state of the displays of replies, without what the panel shows."""
    last = {}
    for content in cell.updates:
        if content["metadata"].get("nbllm", {}).get("state") != "transcript":
            last[content["transient"].get("display_id")] = content
    return list(last.values())


def answer_of(cell):
    return "\n\n".join(content["data"].get("text/plain", "") for content in replies(cell))


def made(cell):
    return next((content["metadata"]["nbllm"] for content in replies(cell) if "nbllm" in content["metadata"]), {})


def writing(count):
    """Whether a cell has been seen writing so often."""
    return lambda cell: sum(c["metadata"].get("nbllm", {}).get("state") == "writing" for c in cell.updates) >= count


def begun(cell):
    return bool(replies(cell))


def reading(cell):
    return any("%" in content["data"].get("text/plain", "") for content in replies(cell))
