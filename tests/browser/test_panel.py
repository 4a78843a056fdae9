"""The chat panel in a browser: what it shows of what it is told, what it asks, and that text stays text."""

import pytest
from browser.pages import HEAD, QUIET, XSS, Panel, inert
from playwright.sync_api import expect

MARKDOWN = """# Title

Some *soft*, **strong** and ~~old~~ words, `code`, $x^2 \\leq \\alpha$, \
[a link](https://example.org/a_b) and https://example.org.

- one
- two
  1. inner

| a | b |
|---|---|
| 1 | 2 |

> quoted

```python
def f(x):  # add
    return x + "1"
```

$$\\frac{a}{b}$$"""


def test_enter_sends_and_stop_is_there_from_that_moment(panel):
    assert panel.asked == [{"kind": "hello"}]
    panel.show()
    panel.page.fill(".nbllm-input", "one")
    panel.page.press(".nbllm-input", "Shift+Enter")
    panel.page.type(".nbllm-input", "two")
    panel.page.press(".nbllm-input", "Enter")
    assert panel.asked[1:] == [{"kind": "send", "text": "one\ntwo"}]
    assert panel.text(".nbllm-user .nbllm-text") == "one\ntwo"
    for name in (
        "Ask the last question again", "Take back the last exchange", "Start a new conversation; this one is kept",
    ):  # fmt: skip
        assert panel.page.get_by_role("button", name=name).is_disabled()
    panel.click("Stop (Escape); what was written is kept")
    panel.page.press(".nbllm-input", "Escape")
    assert panel.asked[2:] == [{"kind": "stop"}] * 2
    panel.grow(done=True)
    panel.page.press(".nbllm-input", "Enter")  # nothing to send
    assert len(panel.asked) == 4 and panel.text(".nbllm-send") == "Send"


def test_it_says_when_the_jupyter_kernel_has_not_heard_yet(panel):
    panel.show()
    panel.taken()
    panel.page.fill(".nbllm-input", "hi")
    panel.page.press(".nbllm-input", "Enter")
    seen = [panel.text(part) for part in (".nbllm-state", ".nbllm-user .nbllm-text", ".nbllm-send")]
    assert seen == ["", "hi", "Stop"]
    expect(panel.page.locator(".nbllm-waits")).to_contain_text("Waiting for the Jupyter kernel, which is busy")
    panel.page.press(".nbllm-input", "Escape")
    expect(panel.page.locator(".nbllm-waits")).to_contain_text("To be stopped: waiting for the Jupyter kernel")
    panel.page.evaluate("window.tell({ kind: 'taken', view: 'another' })")
    assert panel.text(".nbllm-waits").startswith("To be stopped")
    panel.taken()
    panel.tell("begin", question="hi", again=False, waiting=False)
    assert panel.text(".nbllm-waits") == "" and panel.text(".nbllm-state") == "waiting for the model"


def test_a_reply_grows_and_only_what_changes_is_made_anew(panel):
    panel.show()
    panel.tell("begin", question="hi", again=False, waiting=True)
    assert "waiting for what was asked before" in panel.text(".nbllm-state")
    panel.grow(status="reading the prompt: 40%", share=0.4)
    assert panel.text(".nbllm-state") == "reading the prompt"
    assert panel.page.locator("progress").get_attribute("aria-label")
    panel.grow("First.\n\nSec")
    panel.page.evaluate("""() => { window.touched = 0; window.first = document.querySelector(".nbllm-model p");
        new MutationObserver((all) => { for (const each of all) window.touched += each.addedNodes.length; })
          .observe(document.querySelector(".nbllm-model .nbllm-text"), { childList: true }); }""")
    for piece in ("ond", " and", " more.\n\nThird"):
        panel.grow(piece)
    panel.grow(footer="small · 3 written", done=True)
    assert panel.text(".nbllm-model .nbllm-text").split() == "First. Second and more. Third".split()
    assert panel.page.evaluate("window.first.isConnected") and panel.page.evaluate("window.touched") == 4
    panel.tell("all", **{"from": 0, "messages": [{"role": "user", "text": "hi", "think": ""},
               {"role": "assistant", "text": "First.\n\nSecond and more.\n\nThird", "think": ""}], "pending": None,
               "conversation": "1", "model": "small", "context": {"used": 9, "of": 100}, "settings": {}})  # fmt: skip
    assert panel.text(".nbllm-footer") == "small · 3 written" and panel.text(".nbllm-count") == "9 of 100 tokens"
    assert panel.page.locator(".nbllm-message").count() == 2


def test_while_a_question_in_other_words_is_answered_the_copy_stands_above_it(panel):
    panel.show("one", "two", "three", "four")
    panel.tell("begin", question="3", again=False, waiting=False)
    panel.tell("begin", question="3", again=False)
    panel.grow(notices=["Conversation 1-2 goes on after 1 exchange; 1 stays as it is."], status="loading small")
    pending = {"question": "3", "again": False, "notices": ["Conversation 1-2 goes on."], "status": "loading small"}
    copy = {"conversation": "1-2", "model": "small", "context": {"used": 9, "of": 100}, "settings": {}}
    panel.tell("all", **{"from": 2, "messages": [], "pending": pending, **copy})
    panel.grow("five")
    assert panel.page.locator(".nbllm-message .nbllm-text").all_text_contents() == ["one", "two", "3", "five"]
    assert panel.page.locator(".nbllm-notices p").all_text_contents() == ["Conversation 1-2 goes on."]
    assert panel.text(".nbllm-name") == "Chat: 1-2" and panel.text(".nbllm-send") == "Stop"


def test_markdown_becomes_elements(panel):
    panel.show("q", MARKDOWN)
    where = ".nbllm-model .nbllm-text"
    for selector, text in {
        "h3": "Title", "em": "soft", "strong": "strong", "del": "old", "p > code": "code",
        "ul > li >> nth=0": "one", "ol > li": "inner",
        "th >> nth=1": "b", "td >> nth=0": "1", "blockquote": "quoted", "pre": 'def f(x):  # add\n    return x + "1"',
        ".nbllm-keyword >> nth=0": "def", ".nbllm-comment": "# add",
        "p > .nbllm-math msup": "x2", ".nbllm-display mfrac > :nth-child(2)": "b",
    }.items():  # fmt: skip
        assert panel.page.text_content(f"{where} {selector}") == text, selector
    links = panel.page.eval_on_selector_all(f"{where} a", "all => all.map((a) => [a.textContent, a.href, a.rel])")
    assert links == [["a link", "https://example.org/a_b", "noopener noreferrer"],
                     ["https://example.org", "https://example.org/", "noopener noreferrer"]]  # fmt: skip


def test_what_is_thought_is_folded_when_the_answer_begins(panel):
    panel.show()
    panel.tell("begin", question="hi", again=False)
    panel.grow(think="Hm.")
    assert panel.page.get_attribute(".nbllm-think", "open") is not None
    panel.grow("Yes.")
    assert panel.page.get_attribute(".nbllm-think", "open") is None
    assert panel.page.text_content(".nbllm-thought") == "Hm."


def test_buttons_ask_for_what_they_say(panel):
    panel.show("one", "two", "three", "four", conversation="tales")
    panel.click("Ask the last question again")
    panel.click("Take back the last exchange")
    panel.click("Start a new conversation; this one is kept")
    panel.page.hover(".nbllm-user >> nth=1")
    panel.click("Ask this in other words, in a copy of the conversation", ".nbllm-user >> nth=1")
    panel.page.fill(".nbllm-user textarea", "3")
    panel.page.press(".nbllm-user textarea", "Escape")  # leaves it as it is
    panel.click("Ask this in other words, in a copy of the conversation", ".nbllm-user >> nth=1")
    panel.page.fill(".nbllm-user textarea", "3")
    panel.page.press(".nbllm-user textarea", "Enter")
    panel.page.click("summary:has-text('Settings')")
    panel.page.fill(".nbllm-file", "talk.jsonl")
    panel.click("Save the conversation in this file")
    panel.page.fill(".nbllm-settings input", "0")
    panel.page.press(".nbllm-settings input", "Tab")
    assert panel.asked[1:] == [
        {"kind": "rerun"}, {"kind": "undo"}, {"kind": "clear"}, {"kind": "edit", "number": 1, "text": "3"},
        {"kind": "save", "path": "talk.jsonl"}, {"kind": "set", "name": "temperature", "value": 0},
    ]  # fmt: skip
    assert panel.text(".nbllm-name") == "Chat: tales"


def test_code_goes_into_a_new_cell_and_is_copied(panel):
    panel.page.evaluate("navigator.clipboard ??= {}; window.copied = []; Object.defineProperty(navigator, 'clipboard', "
                        "{ value: { writeText: async (text) => window.copied.push(text) } })")  # fmt: skip
    panel.show("q", "```python\nx = 1\n```")
    panel.click("Put this code into a new cell below")
    assert panel.page.evaluate("window.cells") == [[0, {"cell_type": "code", "source": "x = 1", "metadata": {}}]]
    panel.click("Copy this code")
    assert panel.page.evaluate("window.copied") == ["x = 1"]


def test_it_follows_what_is_written_only_from_the_bottom(panel):
    panel.show("q", "\n\n".join(f"line {n}" for n in range(200)))
    panel.page.evaluate("document.querySelector('.nbllm-log').scrollTop = 0")
    panel.tell("begin", question="more", again=False)
    panel.grow("a\n\nb")
    assert panel.page.evaluate("document.querySelector('.nbllm-log').scrollTop") == 0
    panel.page.click("button:has-text('Latest')")
    panel.grow("\n\n" + "\n\n".join("c" * 9))
    assert panel.page.evaluate("(() => { const log = document.querySelector('.nbllm-log');"
                               " return log.scrollHeight - log.scrollTop - log.clientHeight; })()") < 2  # fmt: skip


def test_an_error_is_told_and_the_question_can_be_asked_again(panel):
    panel.show()
    panel.page.fill(".nbllm-input", "hi")
    panel.page.press(".nbllm-input", "Enter")
    # of a setting: the question is still asked
    panel.tell("error", text="temperature is -1", wrong=True, ended=False, draft=None)
    assert panel.text(".nbllm-error") == "temperature is -1" and panel.text(".nbllm-send") == "Stop"
    panel.tell("error", text="the context is full", wrong=True, ended=True, draft="hi")
    assert panel.text(".nbllm-error") == "the context is full" and panel.text(".nbllm-send") == "Send"
    assert panel.page.input_value(".nbllm-input") == "hi" and not panel.page.locator(".nbllm-message").count()
    panel.page.press(".nbllm-input", "Enter")
    assert panel.asked[1:] == [{"kind": "send", "text": "hi"}] * 2 and not panel.page.locator(".nbllm-error").count()


def test_a_missed_message_is_noticed_and_all_is_asked_for(panel):
    panel.grow("of a reply that began before this page came")
    assert not panel.page.locator(".nbllm-message").count() and panel.asked == [{"kind": "hello"}]
    panel.show()
    panel.tell("begin", question="hi", again=False)
    panel.grow("One ")
    panel.number += 1  # one is lost
    for _ in range(2):
        panel.grow("three")
    assert panel.asked == [{"kind": "hello"}] * 2 and panel.text(".nbllm-model .nbllm-text") == "One"
    panel.show(pending={"question": "hi", "again": False, **QUIET, "text": "One two three"})
    panel.grow(" four")
    assert panel.text(".nbllm-model .nbllm-text") == "One two three four"
    assert panel.page.locator(".nbllm-message").count() == 2


def test_what_a_job_says_stays_and_a_field_that_is_filled_in_too(panel):
    panel.show()
    panel.page.click("summary:has-text('Settings')")
    panel.page.fill(".nbllm-settings input", "0.25")
    panel.grow(notices=["Saved 1 exchange in talk.jsonl."])
    panel.grow(done=True)
    panel.tell("head", **HEAD | {"model": "/models/other.gguf"})
    assert panel.text(".nbllm-state") == "Saved 1 exchange in talk.jsonl." and panel.text(".nbllm-send") == "Send"
    assert panel.page.input_value(".nbllm-settings input") == "0.25"
    assert panel.page.input_value(".nbllm-models") == "/models/other.gguf"


def test_hostile_text_is_text(panel):
    tricks = [*XSS, *(f"[x]({line})" for line in XSS), *(f"![{line}]({line})" for line in XSS[:20]),
              "[a](javascript:alert(1))", "[a](data:text/html,<script>alert(1)</script>)",
              "![x](https://example.org/spy.png)", "<https://example.org/<img>",
              "```<img src=x onerror=alert(1)>\n</code><script>alert(1)</script>\n```",
              "| <b> |\n|---|\n| <script>alert(1)</script> |",
              "{{7*7}} ${7*7} {% x %}", "\x1b[31mred\x1b]0;title\x07", "\u202egnp.exe", "e\u0301\u0302" * 50,
              "👩‍👩‍👧‍👦", "x" * 1_000_000,
              "*" * 5000, "`" * 5001, "[" * 5000, "> " * 500 + "deep", "- " * 300, "**a " * 2000]  # fmt: skip
    for at in range(0, len(tricks), 40):
        some = tricks[at : at + 40]
        panel.show(*(text for trick in some for text in (trick, trick)))
        panel.tell("begin", question="again", again=False)
        for trick in some[:10]:
            panel.grow("\n\n" + trick[: len(trick) // 2], think=trick)
            panel.grow(trick[len(trick) // 2 :])
        inert(panel)
        assert panel.page.locator(".nbllm-user .nbllm-text").all_text_contents()[: len(some)] == some
    panel.show("q", "👩‍👩‍👧‍👦 e\u0301 שלום")
    panel.grow("👩"[:1])
    assert panel.page.text_content(".nbllm-model .nbllm-text") == "👩‍👩‍👧‍👦 e\u0301 שלום"


def test_what_is_one_to_the_reader_is_one_in_the_end_wherever_it_was_split(panel):
    clusters = ["👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇫🇷", "e\u0301\u0302", "क्षि", "각", "שָׁ", "𝒜", "a\u200db"]
    text = " ".join([*clusters, *(f"**{each}**" for each in clusters), "`e\u0301👍🏽`", "$e\u0301 + 👩‍👩‍👧‍👦$"])
    what = "() => [...document.querySelectorAll('.nbllm-model .nbllm-text')].pop().innerHTML"
    panel.show("q", text)
    first, wide = panel.page.locator(".nbllm-model strong").first, "(each) => each.offsetWidth"
    whole, width = panel.page.evaluate(what), first.evaluate(wide)
    assert "<mi>e\u0301</mi>" in whole and "<mo>👩‍👩‍👧‍👦</mo>" in whole
    panel.show()
    panel.tell("begin", question="q", again=False)
    for character in text:  # as a tokenizer may split it
        panel.grow(character)
    assert panel.page.evaluate(what) == whole
    assert first.evaluate(wide) == width


# Of some 10,000 tokens each.
LONG = {
    "blocks": "\n\n".join(f"Paragraph {n} with *some* words, `code`, $x_{n}$, and so on and on." for n in range(450)),
    "code": "```python\n" + "".join(f"def f{n}(x):  # add\n    return x + '{n}'\n" for n in range(900)),
    "items": "\n".join(f"- item {n} with **some** words, and `code`, of some twenty tokens" for n in range(500)),
    "items of an item": "- one\n" + "\n".join(f"  1. item {n} with **some** words, and `code`" for n in range(500)),
    "rows": "| a | b |\n|---|---|\n" + "\n".join(f"| cell {n} with words | and `code` in it |" for n in range(600)),
    "quotation": "\n>\n".join(f"> Paragraph {n} with *some* words and `code` in it." for n in range(500)),
}
GROWN = [MARKDOWN, "1. one\n2. two\n\n   more\n\n3. three\n- four\n\nfive",
         "> a\n> - b\n>   c\n\n```\nx = 'a\n" + "y = 1\n" * 90 + "```\nend",
         "```js\n/* " + "long\n" * 100 + "*/ let x = `a`;\n" + "// b\n" * 90,
         "a | b\n--|--\n1 | 2\n3\n\n| not\na table", "- a\n\n- b\n\n\\[\nx\n- y\n\\]\nz",
         '```python\n"""' + "text\n" * 150 + '"""\n' + "x = 1\n" * 90 + '"""open',
         "***a** b*\n# c\n---\nd\n===\n$$a\n\nb$$"]  # fmt: skip
COUNT = """() => { window.touched = 0;
    new MutationObserver((all) => {
      for (const node of all.flatMap((each) => [...each.addedNodes, ...each.removedNodes]))
        window.touched += 1 + (node.querySelectorAll?.("*").length ?? 0); })
      .observe(document.querySelector(".nbllm-log"), { childList: true, subtree: true, characterData: true }); }"""


@pytest.mark.parametrize("kind", LONG)
def test_what_is_long_already_costs_a_reply_nothing(panel, kind):
    panel.show(*(MARKDOWN for _ in range(100)))  # some 10,000 tokens
    panel.tell("begin", question="more", again=False)
    text = LONG[kind]
    panel.grow(text[:-2400])
    panel.page.evaluate(COUNT)
    for at in range(len(text) - 2400, len(text), 24):  # 100 updates
        panel.grow(text[at : at + 24])
    assert 100 <= panel.page.evaluate("window.touched") <= 100 * 150  # of thousands of elements


def test_what_grew_is_what_it_would_be_at_once(panel):
    what = "() => [...document.querySelectorAll('.nbllm-model .nbllm-text')].pop().innerHTML"
    for text in GROWN:
        panel.show("q", text)
        whole = panel.page.evaluate(what)
        panel.show()
        panel.tell("begin", question="q", again=False)
        panel.number = panel.page.evaluate("""([text, number]) => {
            for (let at = 0; at < text.length; at += 3)
              window.tell({ kind: "reply", number: ++number, text: text.slice(at, at + 3) });
            return number; }""", [text, panel.number])  # fmt: skip
        assert panel.page.evaluate(what) == whole
        panel.grow(done=True)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_it_is_readable_in_both_themes(browser, theme):
    panel = Panel(browser, theme)

    def brightness(selector):  # of the text, of what is behind it
        return panel.page.evaluate("""(selector) => ["color", "backgroundColor"].map((name) => {
            const [r, g, b] = getComputedStyle(document.querySelector(selector))[name].match(/\\d+/g).map(Number);
            return 0.299 * r + 0.587 * g + 0.114 * b; })""", selector)  # fmt: skip

    panel.show("question", "answer")
    ink, ground = brightness(".nbllm-panel")
    assert (ink < 80 and ground > 200) if theme == "light" else (ink > 200 and ground < 80)
    for stop in (False, True):
        panel.page.hover(".nbllm-send")
        ink, ground = brightness(".nbllm-send")
        assert ink > ground + 100, stop
        panel.tell("begin", question="more", again=False)
    assert not panel.page.locator("button:not([aria-label]), input:not([title]):not([aria-label])").count()
    panel.page.close()
