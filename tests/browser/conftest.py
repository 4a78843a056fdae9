"""Debian's Chromium, driven by Playwright."""

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
