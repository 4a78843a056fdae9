"""A Jupyter server with JupyterLab and Notebook 7, and notebooks opened in a browser:
run cells, read what they show."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time

import nbformat
from playwright.sync_api import expect

PATIENCE = 60_000  # milliseconds until a test gives up
expect.set_options(timeout=PATIENCE)
# Neither the page nor the server is to ask the network for news.
SETTINGS = {"@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}
ARGUMENTS = ("--no-browser", "--ip=127.0.0.1", "--port=0", "--allow-root", "--IdentityProvider.token=",
             "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate")  # fmt: skip
ROADS = {"lab": "lab/tree", "notebook": "notebooks"}  # where each front end opens a file

# Run in a notebook, replies do not end by themselves, before they can be stopped.
ENDLESS = """
from nbllm.runtime.generation import Generation
begin = Generation.__init__
def endless(self, *given, **named):
    begin(self, *given, **named)
    self._end_ids = frozenset()
Generation.__init__ = endless
"""


class Server:
    """A running server of a folder's notebooks. A context manager."""

    def __init__(self, folder, **environment):
        self.folder = folder
        for name, values in SETTINGS.items():
            self.set(name, **values)
        (folder / "files").mkdir()
        self._log = (folder / "log").open("w", encoding="utf-8")
        places = {"JUPYTERLAB_SETTINGS_DIR": folder / "settings", "JUPYTERLAB_WORKSPACES_DIR": folder / "workspaces"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "jupyter", "lab", f"--ServerApp.root_dir={folder / 'files'}", *ARGUMENTS],
            stdout=self._log, stderr=subprocess.STDOUT,
            env={**os.environ, **{k: str(v) for k, v in places.items()}, **environment},
        )  # fmt: skip

    def __enter__(self):
        """Wait until the server says where it is."""
        end = time.monotonic() + PATIENCE / 1000
        while not (said := re.search(r"http://127\.0\.0\.1:\d+/", self.log)):
            assert self._process.poll() is None and time.monotonic() < end, self.log
            time.sleep(0.05)
        self.url = said[0]
        return self

    def __exit__(self, *error):
        self._process.terminate()  # it ends its kernels
        self._process.wait(30)
        self._log.close()

    @property
    def log(self):
        return (self.folder / "log").read_text(encoding="utf-8")

    def set(self, name, **values):
        """Settings of one plugin, for pages that are opened from now on."""
        file = self.folder / "settings" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(values), encoding="utf-8")

    def write(self, name, *sources, kernel="python3"):
        """Write a notebook of these cells, none of them executed."""
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        notebook.metadata.kernelspec = {"name": kernel, "display_name": kernel, "language": "python"}
        nbformat.write(notebook, self.folder / "files" / name)

    def read(self, name):
        return nbformat.read(self.folder / "files" / name, as_version=4)


class Page:
    """A page of the browser at a server. What it asks of anyone else is kept in `requests`, and refused."""

    def __init__(self, browser, server, width=1200, height=1000):
        self.server, self.requests, self.faults, self.notebook = server, [], [], None
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.page.set_default_timeout(PATIENCE)
        self.page.route("**/*", self._only_the_server)
        self.page.on("dialog", self._dialog)
        self.page.add_locator_handler(self.page.locator(".jp-Dialog"), self._asked)

    def _dialog(self, dialog):
        if dialog.type != "beforeunload":  # the browser's own question, whether to leave what is not saved
            self.faults.append(dialog.message)
        dialog.accept()

    def _asked(self, dialog):
        """Jupyter asks which Jupyter kernel to take where a cell is run before it knows: the notebook's own."""
        text = dialog.inner_text()
        if text.startswith("Select Kernel"):
            kernel = self.server.read(self.notebook).metadata.kernelspec.name
            own = dialog.locator(f"option[value*='\"{kernel}\"']").first
            dialog.locator("select").select_option(own.get_attribute("value"))
        else:
            self.faults.append(text)
        dialog.locator(".jp-mod-accept").click()

    def _only_the_server(self, route):
        if route.request.url.startswith((self.server.url, "data:", "blob:")):
            route.continue_()
        else:
            self.requests.append(route.request.url)
            route.abort()

    def launcher(self):
        self.page.goto(f"{self.server.url}lab?reset")

    def open(self, name, front="lab"):
        """Open a notebook in JupyterLab, or in Notebook 7."""
        self.notebook = name
        self.page.goto(f"{self.server.url}{ROADS[front]}/{name}{'?reset' if front == 'lab' else ''}")
        return self

    def cell(self, number):
        return self.page.locator(".jp-Notebook .jp-Cell.jp-CodeCell").nth(number)

    def output(self, number):
        return self.cell(number).locator(".jp-OutputArea-output")

    def start(self, number):
        """Run a cell as a user does, again if nothing happened:
        JupyterLab runs none before the Jupyter kernel is there, and asks for one where it knows of none yet."""
        expect(self.page.locator(".jp-KernelName").first).not_to_have_text("No Kernel")
        end = time.monotonic() + PATIENCE / 1000
        while time.monotonic() < end:
            self.cell(number).locator(".cm-content").click()
            self.page.keyboard.press("Shift+Enter")
            with contextlib.suppress(AssertionError):
                expect(self._prompt(number)).not_to_have_text("[ ]:", timeout=1000)
                break
        return self.output(number)

    def _prompt(self, number):
        return self.cell(number).locator(".jp-InputArea-prompt").first

    def run(self, number):
        """Run a cell and wait for its end."""
        shown = self.start(number)
        expect(self._prompt(number)).to_have_text(re.compile(r"\[\d+\]:"))
        return shown

    def interrupt(self):
        self.page.locator('[data-command="notebook:interrupt-kernel"]').first.click()

    def save(self, name, condition):
        """Save the notebook; returns it when its file is as `condition` wants it."""
        self.page.keyboard.press("Control+s")
        end = time.monotonic() + PATIENCE / 1000
        while time.monotonic() < end:
            with contextlib.suppress(nbformat.reader.NotJSONError):  # half written
                if condition(notebook := self.server.read(name)):
                    return notebook
            self.page.wait_for_timeout(50)  # the page goes on meanwhile
        raise AssertionError(f"{name} was not saved as wanted")

    def close(self):
        self.page.close()
