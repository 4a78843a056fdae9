"""Executes a notebook in a real Jupyter kernel and prints its cells and its replies as they come.

    python run.py NOTEBOOK [EXECUTED]

Shows what any notebook front end would get from the Jupyter kernel, and saves the executed notebook beside its source.
Knows nothing of nbllm but the metadata of its outputs.
"""

import argparse
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError


class Stream(NotebookClient):
    """Prints what the Jupyter kernel sends while a cell runs."""

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] == "execute_input":
            self._shown = ""  # of the reply, in this cell
            say("", *("> " + line for line in cell.source.splitlines()), "")
        elif msg["msg_type"] in ("display_data", "update_display_data"):
            self._reply(msg["content"])
        elif msg["msg_type"] == "execute_result":
            data = msg["content"]["data"]
            say(data.get("text/markdown", data["text/plain"]))
        elif msg["msg_type"] == "stream":
            print(end=msg["content"]["text"], flush=True)
        return super().process_message(msg, cell, cell_index)

    def _reply(self, content):
        made = content["metadata"].get("nbllm", {"state": "other"})
        text = content["data"].get("text/plain") or self._shown + made["new"]
        status, home = made["state"] == "waiting", "\r\x1b[K" if sys.stdout.isatty() else ""
        if made["state"] == "transcript":  # of a panel: what was said was shown as it came
            return
        if made["state"] == "other":
            say(content["data"].get("text/markdown", text))
        elif status and home:
            print(end=home + text, flush=True)
        elif not status:
            print(end=("" if self._shown else home) + text.removeprefix(self._shown), flush=True)
            self._shown = text
        if made["state"] == "done":
            seconds = made["prefill_seconds"] + made["decode_seconds"]
            say(
                "",
                f"[{seconds:.1f} s, {made['tokens_per_second']:.0f} tokens/s, {made['reused_tokens']} tokens reused]",
            )


def say(*lines):
    print(*lines, sep="\n", flush=True)


def execute(source: Path, target: Path):
    """Execute the notebook at `source`, streaming, and save it at `target`, also when a cell fails."""
    notebook = nbformat.read(source, as_version=4)
    client = Stream(notebook, timeout=None, resources={"metadata": {"path": str(source.resolve().parent)}})
    # its warning that a loopback port is not encrypted would look like ours
    client.extra_arguments = ["--log-level=ERROR"]
    try:
        with client.setup_kernel():
            for index, cell in enumerate(notebook.cells):
                if cell.cell_type == "code":
                    client.execute_cell(cell, index)
                else:
                    say("", cell.source)
    finally:
        nbformat.write(notebook, target)


def main():
    parser = argparse.ArgumentParser(description="Execute a notebook and print its replies as they come.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("executed", type=Path, nargs="?", help="where to save it (NOTEBOOK with .executed.ipynb)")
    arguments = parser.parse_args()
    target = arguments.executed or arguments.notebook.with_suffix(".executed.ipynb")
    try:
        execute(arguments.notebook, target)
    except (CellExecutionError, DeadKernelError, OSError) as error:
        sys.exit(f"\n{arguments.notebook} was not executed to its end: {error}")
    say("", f"The executed notebook is {target.resolve()}; 'make lab' opens it live in JupyterLab.")


if __name__ == "__main__":
    main()
