"""Debian's Chromium, driven by Playwright."""

import json
import os
import shutil

import pytest

CHROMIUM = shutil.which("chromium")


@pytest.fixture(scope="session")
def browser():
    if not CHROMIUM:
        pytest.skip("there is no Chromium to test in; on Debian: apt install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def panel(browser):
    """The panel's JavaScript alone, in a page that must not ask the network for anything."""
    from browser.pages import Panel

    shown = Panel(browser)
    yield shown
    assert not shown.faults and not shown.requests
    shown.page.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory, browser, default_model):
    """A Jupyter server with the Local LLM kernel, and one with the oldest ipykernel, `six`, if there is one."""
    from browser.lab import Server

    from nbllm.jupyter.install import install

    folder = tmp_path_factory.mktemp("server")
    install(prefix=folder / "prefix")
    if "NBLLM_IPYKERNEL6" in os.environ:
        six = folder / "prefix" / "share" / "jupyter" / "kernels" / "six"
        six.mkdir(parents=True)
        argv = [os.environ["NBLLM_IPYKERNEL6"], "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        spec = {"argv": argv, "display_name": "six", "language": "python"}
        (six / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    path = str(folder / "prefix" / "share" / "jupyter")
    with Server(folder, JUPYTER_PATH=path, NBLLM_MODELS=str(default_model.parent)) as server:
        yield server


@pytest.fixture
def page(browser, server):
    from browser.lab import Page

    page = Page(browser, server)
    yield page
    assert not page.faults and not page.requests
    page.close()
