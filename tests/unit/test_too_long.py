"""What no context holds is refused before time is spent on it, and a prompt can be stopped while it is made."""

import pytest
from fakes import CHATML, FakeTokenizer, fake_model

from nbllm.chat.batch import ChatBatch
from nbllm.chat.conversation import Chat, Notice
from nbllm.chat.template import render
from nbllm.errors import ContextFullError
from nbllm.runtime.events import StopFlag
from nbllm.runtime.options import Sampling


def refusing(model, most):
    """The model, failing the test if it is given more text than this to encode."""
    encode = model.tokenizer.encode

    def checked(text, *arguments):
        assert len(text) <= most
        return encode(text, *arguments)

    model.tokenizer.encode = checked
    return model


@pytest.mark.parametrize("context", [300, 10**8])
def test_a_message_that_no_context_holds_is_refused_before_it_is_encoded(context):
    chat = Chat(refusing(fake_model("a", context=context), 1000))
    for overflow in ("drop", "stop"):
        chat.overflow = overflow
        with pytest.raises(ContextFullError, match="characters.*shorten the message"):
            chat("y" * 4_194_305)
    assert chat.messages == [] and chat("x").text == "a"


def test_a_message_that_the_context_does_not_hold_is_not_rendered(monkeypatch):
    chat = Chat(fake_model(context=300))
    monkeypatch.setattr(chat._prompts, "render", None)
    with pytest.raises(ContextFullError, match="50,000 characters makes more tokens than the 300"):
        chat("y" * 50_000)


def test_a_template_that_writes_more_than_the_context_holds_is_not_encoded():
    chat = Chat(refusing(fake_model(template="{{ 'x' * 4000000 }}", context=300), 1000))
    with pytest.raises(ContextFullError, match="4,000,000 characters makes more tokens than the 300"):
        chat("x")


def test_an_exchange_too_long_to_be_encoded_is_dropped_like_any_other():
    chat = Chat(refusing(fake_model("a", context=300), 1000), overflow="stop")
    chat.messages = [{"role": "user", "content": "y" * 50_000}, {"role": "assistant", "content": "z"}]
    with pytest.raises(ContextFullError, match="more than 300 tokens, and the context of 300 is full; take exchanges"):
        chat("x")
    chat.overflow = "drop"
    events = list(chat.stream("x"))
    assert events[0] == Notice("The context of 300 tokens is full: the oldest 1 exchange was dropped.")
    assert chat.last.text == "a" and chat.model.engine.prompts == [
        FakeTokenizer().encode(render(CHATML, [{"role": "user", "content": "x"}]))
    ]


def test_of_a_conversation_many_times_too_long_few_beginnings_are_tried(monkeypatch):
    chat, rendered = Chat(fake_model("a", context=300)), []
    render_as_ever = chat._prompts.render
    monkeypatch.setattr(chat._prompts, "render", lambda *given: rendered.append(given) or render_as_ever(*given))
    chat.messages = [{"role": "user", "content": "y"}, {"role": "assistant", "content": "z"}] * 500
    assert chat("x").text == "a" and 2 < len(chat.messages) < 20
    assert len(rendered) < 12


def test_a_turn_is_stopped_while_its_prompt_is_made():
    chat, flag = Chat(fake_model("never")), StopFlag()
    encode = chat.model.tokenizer.encode

    def stopping(*arguments):
        flag.set()
        return encode(*arguments)

    chat.model.tokenizer.encode = stopping
    assert [event.finish_reason for event in chat.stream("x", flag)] == ["stopped"]
    assert chat.messages == [] and chat.model.engine.prompts == []


def test_a_turn_stopped_before_its_prompt_is_made_ends_as_one_stopped_later():
    flag = StopFlag()
    flag.set()
    chat = Chat(fake_model("yes"))
    assert [event.finish_reason for event in chat.stream("x", flag)] == ["stopped"]
    assert (chat.last.text, chat.last.finish_reason, chat.messages) == ("", "stopped", [])
    assert chat.model.engine.prompts == []
    assert chat("x").text == "yes"


class NoBatch:
    """A batch without a model behind it, which fails the test if it is asked to compute."""

    def __len__(self):
        return 0


def test_rows_end_when_they_are_stopped_while_a_prompt_is_made_and_a_row_too_long_is_an_error(monkeypatch):
    model, flag = refusing(fake_model(context=300), 1000), StopFlag()
    monkeypatch.setattr(model, "batch", NoBatch)
    batch = ChatBatch(Chat(model), Sampling(seed=1))

    def rows():
        yield 0, "y" * 50_000
        flag.set()
        yield 1, "x"

    (number, error), = batch.replies(rows(), flag)
    assert number == 0 and isinstance(error, ContextFullError)
