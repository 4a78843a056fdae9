"""The tokens of a reply: their texts and probabilities, and how they are shown without any of it becoming markup."""

import re
import xml.etree.ElementTree as ET

from IPython.core.formatters import DisplayFormatter

import nbllm
from fakes import FakeTokenizer
from nbllm.chat.tokens import MOST, Tokens
from nbllm.runtime.events import Token
from nbllm.text import Alternative, Text, TextStream, TextToken

HOSTILE = ["<script>alert(1)</script>", '"><img src=x>', "]]>&amp;", "\x00\x1b[31m\x07", "\ud800", "\u202e\u2028\ufffe",
           "\n\t ", "語" * 40]  # fmt: skip


def told(texts, probability=0.5):
    return Tokens(TextToken(n, probability, (Alternative(n, text, 0.5), Alternative(99, text, 0.25)), text)
                  for n, text in enumerate(texts))  # fmt: skip


def test_a_token_whose_probability_is_told_gets_the_texts_and_any_other_stays():
    stream = TextStream(FakeTokenizer(), ())
    (text,) = stream.push(Token(65, 0.5, ((66, 0.25), (0xE2, 0.125))))
    others = Alternative(66, "B", 0.25), Alternative(0xE2, "\\xe2", 0.125)
    assert text == Text("A", (TextToken(65, 0.5, others, "A"),))
    assert list(stream.push(Token(66))) == [Text("B", (Token(66),))]


def test_the_probabilities_are_those_of_the_logits(tiny_model):
    with nbllm.load(tiny_model) as model:
        chat = nbllm.Chat(model, temperature=0, repeat_penalty=1, max_tokens=4, seed=0)
        reply = chat("x", alternatives=3)
        assert reply.tokens and isinstance(reply.tokens, Tokens)
        logits = model.logits(chat.sent + [token.id for token in reply.tokens])[len(chat.sent) - 1 : -1]
        for row, token in zip(logits.astype(float), reply.tokens, strict=True):
            share = 2.718281828459045 ** (row - row.max())
            share /= share.sum()
            assert abs(share[token.id] - token.probability) < 1e-6 and len(token.alternatives) == 3
            assert [each.id for each in token.alternatives][0] == token.id == row.argmax()
            assert all(each.text == model.tokenizer.token_bytes(each.id).decode("utf-8", "backslashreplace")
                       for each in token.alternatives)  # fmt: skip
        plain = chat.retry()
        assert [token.id for token in plain.tokens] == [token.id for token in reply.tokens]
        assert not plain.tokens.told and reply.tokens.told


def test_a_table_has_a_line_for_each_token():
    assert told(["a b", "語"]).table().split("\n") == [
        "token  probability  instead", "a·b          50.0%  a·b 25%", "語           50.0%  語 25%",
    ]  # fmt: skip


def test_the_image_has_text_and_nothing_else_of_what_a_model_wrote():
    bundle, _ = DisplayFormatter().format(told(HOSTILE))
    assert set(bundle) == {"text/plain", "image/svg+xml"}
    root = ET.fromstring(bundle["image/svg+xml"])
    assert {element.tag.partition("}")[2] for element in root.iter()} == {"svg", "rect", "text"}
    assert not [name for element in root.iter() for name in element.attrib if name.startswith("on") or "href" in name]
    shown = "".join(root.itertext())
    assert "<script>alert(1)</script" in shown and "\x1b" not in shown and "\u202e" not in shown
    bundle["image/svg+xml"].encode()  # no half of a surrogate pair
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\u2028\u202e]", bundle["text/plain"])


def test_a_long_reply_is_shown_in_part_and_that_is_said():
    tokens = told(["x"] * (MOST + 7), 0.05)
    assert tokens.table().endswith("\n... and 7 more")
    root = ET.fromstring(tokens.svg())
    assert sum(element.tag.endswith("rect") for element in root.iter()) == MOST + 1
    width, height = float(root.get("width")), float(root.get("height"))
    for box in root.iter("{http://www.w3.org/2000/svg}text"):
        assert 0 <= float(box.get("x")) <= width and 0 <= float(box.get("y")) <= height


def test_tokens_without_probabilities_are_shown_as_a_tuple():
    assert DisplayFormatter().format(Tokens([Token(1)])) == ({"text/plain": repr((Token(1),))}, {})
    assert Tokens() == () and Tokens([Token(1)]) == (Token(1),)
