"""The panel in JupyterLab and in Notebook 7, with a real model: what it shows and does while a cell computes."""

import os
import re

import pytest
from browser.lab import ENDLESS
from playwright.sync_api import expect

FOOTER = re.compile(r"\d+ tokens read, \d+ reused, \d+ written")
LOAD = "%load_ext nbllm\n%config NbLLM.max_tokens = 2000\n%config NbLLM.seed = 3\n%config NbLLM.temperature = 1"
SHOW = "import nbllm\nnbllm.panel()"
# What the page sends goes to a thread of its own when the Jupyter kernel has made one for it.
THREAD = "import time\nwhile not get_ipython().kernel.shell_channel_thread.manager.list_subshell(): time.sleep(0.01)"
LONG, SHORT = "Tell me a very long story about the sea.", "Say hello."


@pytest.fixture
def show(page, server, tmp_path):
    """Opens a notebook with the panel; gives what lets the cell go on that then waits, the last one."""

    def shown(front, kernel, *between):
        gate, name = tmp_path / "gate", f"{tmp_path.name}.ipynb"  # a name of its own has a Jupyter kernel of its own
        waits = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.01)"
        server.write(name, LOAD + ENDLESS, SHOW, *between, waits, kernel=kernel)
        page.open(name, front)
        for number in range(2 + len(between)):
            page.run(number)
        expect(page.page.locator(".nbllm-models")).to_be_visible()
        return gate

    return shown


def ask(page, text):
    page.page.fill(".nbllm-input", text)
    page.page.press(".nbllm-input", "Enter")


def prompt(page):
    """Of the cell that waits for the gate; which number it has among those that are attached depends on scrolling."""
    cell = page.page.locator(".jp-Notebook .jp-Cell.jp-CodeCell", has_text="os.path.exists")
    return cell.locator(".jp-InputArea-prompt").first


def computes(page):
    return prompt(page).inner_text() == "[*]:"


@pytest.mark.parametrize("front", ["lab", "notebook"])
def test_while_a_cell_computes_the_panel_answers_and_stops(page, show, front):
    gate = show(front, "python3", THREAD)
    panel = page.page
    page.start(3)
    ask(page, SHORT)
    ended = panel.locator(".nbllm-model:has(.nbllm-footer:not(:empty))")
    expect(panel.locator(".nbllm-model .nbllm-text").first).to_contain_text(re.compile(r"\w"))
    panel.keyboard.press("Escape")
    expect(ended).to_have_count(1)
    expect(ended).to_contain_text(FOOTER)
    ask(page, LONG)
    expect(panel.locator(".nbllm-model .nbllm-text").nth(1)).to_contain_text(re.compile(r"\w+ \w+ \w+"))
    panel.locator(".nbllm-send").click()
    expect(ended).to_have_count(2)
    expect(ended.nth(1)).to_contain_text("stopped")
    expect(panel.locator(".nbllm-waits")).to_be_hidden()
    assert computes(page)
    gate.touch()
    expect(prompt(page)).not_to_have_text("[*]:")


@pytest.mark.skipif("NBLLM_IPYKERNEL6" not in os.environ, reason="NBLLM_IPYKERNEL6 names no Python with ipykernel 6")
def test_with_the_oldest_ipykernel_it_says_that_it_waits_for_the_cell(page, show):
    gate = show("lab", "six")
    panel, waits = page.page, page.page.locator(".nbllm-waits")
    page.start(2)
    ask(page, SHORT)
    expect(waits).to_contain_text("Waiting for the Jupyter kernel, which is busy")
    assert panel.inner_text(".nbllm-user .nbllm-text") == SHORT and panel.inner_text(".nbllm-send") == "Stop"
    panel.locator(".nbllm-send").click()
    expect(waits).to_contain_text("To be stopped")
    assert computes(page)
    gate.touch()
    expect(waits).to_be_hidden()
    expect(panel.locator(".nbllm-send")).to_have_text("Send")
    expect(panel.locator(".nbllm-state")).to_contain_text("Stopped")
    assert panel.input_value(".nbllm-input") == SHORT  # nothing came of it, so it is given back
    panel.press(".nbllm-input", "Enter")
    expect(panel.locator(".nbllm-model .nbllm-text")).to_contain_text(re.compile(r"\w"))
    panel.keyboard.press("Escape")
    expect(panel.locator(".nbllm-footer:not(:empty)")).to_contain_text(FOOTER)


@pytest.mark.skipif("NBLLM_IPYKERNEL6" not in os.environ, reason="NBLLM_IPYKERNEL6 names no Python with ipykernel 6")
def test_with_the_oldest_ipykernel_a_reply_goes_on_while_a_cell_computes_and_is_stopped_by_an_interrupt(page, show):
    show("lab", "six")
    panel, waits, text = page.page, page.page.locator(".nbllm-waits"), page.page.locator(".nbllm-model .nbllm-text")
    ask(page, LONG)
    expect(text).to_contain_text(re.compile(r"\w+ \w+ \w+"))
    page.start(2)
    expect(prompt(page)).to_have_text("[*]:")
    before = text.inner_text()
    panel.locator(".nbllm-send").click()
    expect(waits).to_contain_text("To be stopped")
    expect(text).not_to_have_text(before)
    assert computes(page)
    page.interrupt()
    expect(waits).to_be_hidden()
    expect(panel.locator(".nbllm-footer:not(:empty)")).to_contain_text("stopped")
