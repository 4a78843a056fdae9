"""nbllm as it is seen: a `%%chat` cell and the Local LLM kernel, in JupyterLab and in Notebook 7."""

import re

import pytest
from browser.lab import ENDLESS
from playwright.sync_api import expect

FRONTS = ["lab", "notebook"]
LOAD = "%load_ext nbllm\n%config NbLLM.temperature = 0"
HOSTILE = {  # a reply's text: what of it must be seen
    "<script>window.ran = 1</script>": "<script>window.ran = 1</script>",
    "<img src=x onerror='window.ran = 1'>": "<img src=x onerror='window.ran = 1'>",
    "<svg onload=window.ran=1><style>body { display: none }</style>": "<svg onload=window.ran=1>",
    "[press](javascript:window.ran=1)": "press",
    "[press](data:text/html,%3Cscript%3Ewindow.ran=1%3C/script%3E)": "press",
    "![spy](https://example.org/spy.png)": "spy",
    "{{7+7}} ${7+7} {% x %}": "{{7+7}} ${7+7} {% x %}",
    "\x1b[31mred\x1b]0;title\x07": "red",
    "\u202egnp.exe": "gnp.exe",
    "e\u0301\u0302 \u05e9\u05dc\u05d5\u05dd": "e\u0301\u0302 \u05e9\u05dc\u05d5\u05dd",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467": "\U0001f469\u200d\U0001f469\u200d\U0001f467",
}
LONG = "shown = output(get_ipython())\nshown.event(asked)\nshown.event(Text('x' * 1_000_000, ()))\nshown.finish()"
STOPPED = [re.compile(r"· stopped\s*$"), re.compile(r"Stopped after \d+ tokens; the partial reply is kept\.")]
FOOTER = re.compile(r"\d+ tokens read, \d+ reused, \d+ written")


@pytest.mark.parametrize("front", FRONTS)
def test_a_cell_streams_is_stopped_by_the_button_and_is_there_after_a_reload(page, server, front):
    name = f"chat_{front}.ipynb"
    server.write(name, LOAD + ENDLESS, "%%chat --max-tokens 12\nhello",
                 "%%chat --max-tokens 2000 --top-k 40 -t 1 --seed 3\nTell me a very long story.")  # fmt: skip
    page.open(name, front).run(0)
    expect(page.output(0)).to_have_count(0)
    expect(page.run(1)).to_contain_text(FOOTER)
    page.start(2)
    expect(page.output(2).locator("p").first).to_contain_text(re.compile(r"\w+ \w+ \w+"))  # it writes
    expect(page.output(2)).not_to_contain_text(FOOTER)
    page.interrupt()
    expect(page.output(2)).to_contain_text(STOPPED)
    notebook = page.save(name, lambda saved: len(saved.cells[2].outputs) == 2)
    texts = page.output(1).all_inner_texts() + page.output(2).all_inner_texts()
    page.page.reload()
    expect(page.output(1)).to_contain_text(FOOTER)  # Markdown comes after its place
    expect(page.output(2)).to_contain_text(STOPPED)
    assert page.output(1).all_inner_texts() + page.output(2).all_inner_texts() == texts
    assert notebook.cells[2].outputs[0].metadata["nbllm"]["finish_reason"] == "stopped"


@pytest.mark.parametrize("front", FRONTS)
def test_a_reply_in_the_background_grows_in_its_own_cell_while_others_run(page, server, front):
    name = f"background_{front}.ipynb"
    ask = "%%chat --bg -o answer --max-tokens 60 -t 1 --seed 3\nTell me a very long story."
    server.write(name, LOAD, ask, "6 * 7", "answer.wait().text == answer.text")
    page.open(name, front).run(0)
    page.run(1)
    expect(page.run(2)).to_have_text(["42"])
    expect(page.run(3)).to_have_text(["True"])
    expect(page.output(1)).to_contain_text(FOOTER)
    saved = page.save(name, lambda saved: bool(saved.cells[3].outputs))
    (output,) = saved.cells[1].outputs
    assert output.metadata["nbllm"]["state"] == "done" and output.data["text/plain"]


@pytest.mark.parametrize("front", FRONTS)
def test_hostile_text_is_inert_and_all_of_it_is_there(page, server, front):
    name, said = f"hostile_{front}.ipynb", list(HOSTILE)
    shows = "from IPython import get_ipython\nfrom nbllm.jupyter.display import output\nfrom nbllm.text import Text\n"
    shows += "from nbllm.jupyter.session import Answering\nfrom nbllm.runtime.options import Sampling\n"
    shows += f"asked, said = Answering('model', '', 100, Sampling(), None), {said!r}\n"
    shows += "for text in said:\n    shown = output(get_ipython())\n    shown.event(asked)\n"
    shows += "    shown.event(Text(text, ()))\n    shown.finish()"
    server.write(name, shows, LONG)
    page.open(name, front).run(0)
    expect(page.output(0)).to_have_count(len(said))
    for text, shown in zip(said, page.output(0).all_inner_texts(), strict=True):
        assert HOSTILE[text] in shown.replace("\u2060", ""), (text, shown)
    page.run(1)
    expect(page.output(1)).to_have_text("x" * 1_000_000)
    assert page.page.evaluate("window.ran === undefined")
    tags = page.page.eval_on_selector_all(
        ".jp-OutputArea-output *", "all => [...new Set(all.map((each) => each.tagName))]"
    )
    assert not set(tags) & {
        "SCRIPT", "IMG", "IFRAME", "OBJECT", "EMBED", "FORM", "INPUT", "SVG", "svg", "STYLE", "LINK",
    }  # fmt: skip
    links = page.page.eval_on_selector_all(".jp-OutputArea-output a", "all => all.map((each) => each.protocol)")
    assert not [link for link in links if link not in ("http:", "https:", "mailto:")]


def test_the_kernel_of_the_launcher_is_asked_in_prose_and_the_dark_theme_is_readable(page, server):
    server.set("@jupyterlab/apputils-extension/themes", theme="JupyterLab Dark")
    page.launcher()
    page.page.locator('.jp-LauncherCard[data-category="Notebook"][title^="Local LLM"]').click()
    expect(page.cell(0)).to_be_visible()
    page.cell(0).locator(".cm-content").click()
    page.page.keyboard.type("hello")
    page.start(0)
    expect(page.output(0)).to_contain_text(FOOTER)
    expect(page.page.locator("body")).to_have_attribute("data-jp-theme-light", "false")
    ink, ground = (page.page.evaluate("""([selector, name]) => {
        const [r, g, b] = getComputedStyle(document.querySelector(selector))[name].match(/\\d+/g).map(Number);
        return 0.299 * r + 0.587 * g + 0.114 * b; }""", [*each]) for each in ((".jp-OutputArea-output p", "color"),
        (".jp-Notebook", "backgroundColor")))  # fmt: skip
    assert ink > 150 and ground < 80
