"""Real Jupyter kernels for tests: run cells, follow what they send, interrupt them."""

import ast
import json
import queue
import time

from jupyter_client.manager import KernelManager

PATIENCE = 60  # seconds without a message until a test gives up; a halt of all processes counts as one


class Cell:
    """One execution and everything the Jupyter kernel sent about it."""

    def __init__(self, kernel, code, asked=None):
        self._kernel = kernel
        self.id = asked or kernel.client.execute(code)
        self.messages = []
        self.reply = None

    def until(self, condition):
        """Read messages until `condition(cell)` holds."""
        while not condition(self):
            message = self._kernel.message("iopub")
            parent = message["parent_header"]
            if parent.get("msg_id") == self.id:
                self.messages.append(message)
            else:
                assert self._kernel.ignores(message), message
        return self

    def finish(self):
        """Read to the end: the idle status and the reply."""
        self.until(lambda cell: cell.of("status") and cell.of("status")[-1]["execution_state"] == "idle")
        while self.reply is None:
            message = self._kernel.message("shell")
            if message["parent_header"].get("msg_id") == self.id:
                self.reply = message["content"]
                self.ended = time.monotonic()
        return self

    def aside(self):
        """This cell goes on in the background: what comes of it later is no concern of others, and kept in `later`."""
        self._kernel.ignored.add(self.id)
        return self

    @property
    def later(self):
        """Messages of this cell that came when others were read."""
        return [message for message in self._kernel.put_aside if message["parent_header"].get("msg_id") == self.id]

    def of(self, *kinds):
        """Contents of the messages of these types, in order."""
        return [message["content"] for message in self.messages if message["msg_type"] in kinds]

    @property
    def updates(self):
        return self.of("display_data", "update_display_data")

    @property
    def texts(self):
        """The one reply of this cell as plain text, after each update."""
        texts, written = [], ""
        for update in self.updates:
            made = update["metadata"].get("nbllm", {})
            text = update["data"].get("text/plain")
            texts.append(text if text is not None else written + made["new"])
            written = texts[-1] if made.get("state") == "writing" else ""
        return texts

    @property
    def size(self):
        """Bytes of all messages, as a front end gets them."""
        parts = ("header", "parent_header", "metadata", "content")
        return sum(len(json.dumps(message[part], default=str)) for message in self.messages for part in parts)

    @property
    def states(self):
        """Whether each update was "waiting", "writing" or "done"."""
        return [content["metadata"]["nbllm"]["state"] for content in self.updates]

    @property
    def outputs(self):
        """The last state of every display, in order of appearance: what a notebook would save."""
        last = {content["transient"]["display_id"]: content for content in self.updates}
        return list(last.values())

    @property
    def text(self):
        """The one reply of this cell as plain text."""
        (output,) = self.outputs
        return output["data"]["text/plain"]

    @property
    def made(self):
        """The metadata of the one reply of this cell."""
        (output,) = self.outputs
        return output["metadata"]["nbllm"]

    @property
    def printed(self):
        return "".join(content["text"] for content in self.of("stream"))

    @property
    def error(self):
        """What the front end shows for the error: its lines."""
        (content,) = self.of("error")
        return content["traceback"]


class Kernel:
    """A running Jupyter kernel. A context manager."""

    def __init__(self, name="python3", arguments=()):
        self.manager = KernelManager(kernel_name=name)
        self.manager.start_kernel(extra_arguments=list(arguments))
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.ignored = set()  # requests that are not cells, or go on behind them, and displays that go on after theirs
        self.put_aside = []  # what came of them meanwhile

    def __enter__(self):
        self.client.wait_for_ready(timeout=PATIENCE)
        return self

    def __exit__(self, *error):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()

    def start(self, code):
        return Cell(self, code)

    def follow(self, asked):
        """A cell that was sent otherwise, by the name of its request."""
        return Cell(self, None, asked)

    def run(self, code):
        return Cell(self, code).finish()

    def value(self, expression):
        """The value of a Python expression, by way of JSON; runs no cell that the history would count."""
        asked = {"value": f"__import__('json').dumps({expression})"}
        value = self.ask("execute", "", silent=True, user_expressions=asked)["user_expressions"]["value"]
        assert value["status"] == "ok", value
        return json.loads(ast.literal_eval(value["data"]["text/plain"]))

    def ask(self, request, *arguments, **options):
        """Any request of the client, by its name; the content of its reply."""
        asked = getattr(self.client, request)(*arguments, **options)
        self.ignored.add(asked)
        while True:
            message = self.message("shell")
            if message["parent_header"].get("msg_id") == asked:
                return message["content"]

    def message(self, channel):
        """The next message of a channel."""
        get = getattr(self.client, f"get_{channel}_msg")
        for _ in range(PATIENCE):
            try:
                return get(timeout=1)
            except queue.Empty:
                assert self.manager.is_alive(), "the Jupyter kernel has ended"
        raise AssertionError(f"no message came on {channel} for {PATIENCE} seconds")

    def interrupt(self):
        """Interrupt, as the stop button does; returns when."""
        now = time.monotonic()
        if self.manager.kernel_spec.interrupt_mode != "message":
            self.manager.interrupt_kernel()
            return now
        message = self.client.session.msg("interrupt_request", {})
        self.client.control_channel.send(message)  # the manager would not wait until it was handled
        while self.message("control")["parent_header"].get("msg_id") != message["header"]["msg_id"]:
            pass
        return now

    def stray(self, seconds):
        """Messages that arrive in this time though no cell runs, those of requests that were no cells apart."""
        found, end = [], time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            try:
                message = self.client.get_iopub_msg(timeout=left)
            except queue.Empty:
                break
            if not self.ignores(message):
                found.append(message)
        return found

    def ignores(self, message):
        """Whether a message is about a request that was no cell: of these tests, or an interrupt, or the start; or
        about a display that goes on after its cell."""
        parent = message["parent_header"]
        self.put_aside.append(message)
        if message["content"].get("transient", {}).get("display_id") in self.ignored:
            return True
        return parent.get("msg_id") in (None, *self.ignored) or parent["msg_type"] == "interrupt_request"
