"""The panel's JavaScript alone, in a page with a stand-in for the widget's model:
what a test tells it, and what it asks."""

from pathlib import Path

from nbllm.jupyter.panel import SCRIPTS, STATIC

XSS = (Path(__file__).parents[1] / "data" / "xss.txt").read_text(encoding="utf-8").splitlines()
PAGE = """<!doctype html><meta charset="utf-8"><style>{css}</style>
<body style="color-scheme: {theme}"><div id="here"></div></body>"""
MODEL = """
window.asked = []; window.cells = []; let hears = () => {};
const shared = { cells: [], insertCell: (at, cell) => window.cells.push([at, cell]) };
window.tell = (told) => hears(told);
const model = { send: (told) => window.asked.push(told), on: (kind, run) => { hears = run; }, off: () => {},
  widget_manager: { context: { model: { sharedModel: shared } } } };
window.panel.render({ model, el: document.getElementById("here") });
"""
HEAD = {"conversation": "1", "model": "small", "context": {"used": 5, "of": 100}, "settings": {"temperature": 0.7}}
QUIET = {"text": "", "think": "", "notices": [], "status": "", "share": None, "footer": "", "done": False}
# What the renderer may make of text, and which attributes of it.
ELEMENTS = set("P H3 H4 H5 H6 HR BLOCKQUOTE UL OL LI TABLE THEAD TBODY TR TH TD DIV SPAN PRE CODE STRONG EM DEL A BR "
               "BUTTON".split())  # fmt: skip
ELEMENTS |= set("math mrow mi mn mo mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover".split())
ELEMENTS |= {"mtable", "mtr", "mtd", "mstyle", "mphantom"}
ATTRIBUTES = {"class", "href", "target", "rel", "title", "start", "type", "aria-label"}
ATTRIBUTES |= set("display displaystyle mathvariant stretchy symmetric form lspace rspace minsize maxsize".split())
ATTRIBUTES |= {"width", "movablelimits", "accent", "accentunder", "linethickness"}


class Panel:
    """A page with one panel. Whatever else it asks the network for is kept in `requests`, and refused."""

    def __init__(self, browser, theme="light"):
        self.page = browser.new_page(viewport={"width": 900, "height": 900})
        self.requests, self.faults = [], []
        self.number = 0  # of the last message told
        self.page.route("**/*", self._refuse)
        self.page.on("dialog", lambda dialog: (self.faults.append(dialog.message), dialog.dismiss()))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        css = (STATIC / "panel.css").read_text(encoding="utf-8")
        self.page.set_content(PAGE.format(css=css, theme=theme))
        script = "".join((STATIC / name).read_text(encoding="utf-8") for name in SCRIPTS)
        script = script.replace("export default { render };", "window.panel = { render };")
        self.page.evaluate(f"(() => {{ {script} }})()")
        self.page.evaluate(f"(() => {{ {MODEL} }})()")

    def _refuse(self, route):
        self.requests.append(route.request.url)
        route.abort()

    def tell(self, kind, **content):
        self.number += 1
        self.page.evaluate("told => window.tell(told)", {"kind": kind, "number": self.number, **content})

    def show(self, *texts, **head):
        """A conversation: questions and answers in turn."""
        messages = [{"role": ("user", "assistant")[n % 2], "text": text, "think": ""} for n, text in enumerate(texts)]
        self.tell("all", **{"from": 0, "messages": messages, "pending": None, "whole": True, **HEAD, **head})

    def grow(self, text="", **told):
        self.tell("reply", **QUIET | {"text": text, **told})

    @property
    def asked(self):
        """What the page asked, without the name of the view that asked."""
        all_asked = self.page.evaluate("window.asked")
        return [{name: value for name, value in asked.items() if name != "view"} for asked in all_asked]

    def taken(self):
        """Tell each view that its question has come."""
        self.page.evaluate("() => { for (const { view } of window.asked) window.tell({ kind: 'taken', view }); }")

    def click(self, name, within=".nbllm-panel"):
        self.page.locator(within).get_by_role("button", name=name).click()

    def text(self, selector=".nbllm-log"):
        return self.page.inner_text(selector)

    def made(self):
        """Elements and attributes in the texts of the conversation."""
        return self.page.evaluate("""() => [...document.querySelectorAll(".nbllm-text *, .nbllm-thought *")]
            .map((node) => [node.tagName, node.getAttributeNames()])""")


def inert(panel):
    """Holds that text became only the renderer's own elements and attributes, and links that lead to the web."""
    for tag, attributes in panel.made():
        assert tag in ELEMENTS and set(attributes) <= ATTRIBUTES, (tag, attributes)
    hrefs = panel.page.eval_on_selector_all(".nbllm-log a", "all => all.map((a) => a.protocol)")
    assert set(hrefs) <= {"http:", "https:", "mailto:"}
