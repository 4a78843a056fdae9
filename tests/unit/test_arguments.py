"""Arguments of the wrong kind are refused in one line, before anything is computed."""

import numpy as np
import pytest
from fakes import fake_model

import nbllm
from nbllm.chat.conversation import Chat
from nbllm.errors import OptionError

GENERATE = [  # a prompt, options, and how the line begins
    (5, {}, "token ids=5 cannot be used: give whole numbers"),
    (None, {}, "token ids=None cannot be used"),
    ([1, "a"], {}, "token ids=[1, 'a'] cannot be used"),
    ([1.5], {}, "token ids=[1.5] cannot be used"),
    ("x", {"alternatives": "a"}, "alternatives='a' cannot be used: give a whole number of 0 or more"),
    ("x", {"alternatives": 2.5}, "alternatives=2.5 cannot be used"),
    ("x", {"alternatives": -1}, "alternatives=-1 cannot be used"),
    ("x", {"constraint": 5}, "constraint=5 cannot be used: give an object with allowed, likely and push"),
    ("x", {"stop_flag": 5}, "stop_flag=5 cannot be used: give a StopFlag"),
    ("x", {"temperature": "1"}, "temperature='1' is out of range"),
    ("x", {"temperature": np.eye(2)}, "temperature=array([[1., 0.], [0., 1.]]) is out of range"),
    ("x", {"max_tokens": -(10**5000)}, "max_tokens=<int> is out of range"),
    ("x", {"stop": 5}, "stop=5 is not usable"),
]


@pytest.mark.parametrize("prompt, options, line", GENERATE)
def test_what_generate_cannot_use_is_refused_at_the_call(prompt, options, line):
    model = fake_model("y")
    with pytest.raises(OptionError) as error:
        model.generate(prompt, **options)
    assert str(error.value).startswith(line) and "\n" not in str(error.value)
    assert model.engine.prompts == []


@pytest.mark.parametrize("value", [5, None, ["a"], [1.5], [None], "ab"])
def test_what_are_no_token_ids_is_one_line(tiny_model, value):
    with nbllm.load(tiny_model) as model:
        for call in (model.detokenize, model.logits):
            with pytest.raises(OptionError, match="^token ids=.* cannot be used: give whole numbers$"):
                call(value)


@pytest.mark.parametrize("value", [5, None, b"x", ["x"]])
def test_what_is_no_text_is_one_line(value):
    with pytest.raises(OptionError, match="^text=.* cannot be used: give text$"):
        fake_model("y").tokenize(value)


@pytest.mark.parametrize("bits", ["16", None, [], 17])
def test_bits_that_no_cache_has_are_one_line(tiny_model, bits):
    with pytest.raises(OptionError, match="cache_bits=.* is not supported: give "):
        nbllm.load(tiny_model, cache_bits=bits)


@pytest.mark.parametrize("path", [5, b"x", ["x"]])
def test_what_is_neither_a_path_nor_a_name_is_one_line(path):
    with pytest.raises(OptionError, match="^path_or_name=.* cannot be used: give a path, or a model's name$"):
        nbllm.load(path)


TALK = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
WRONG = {  # an argument of the wrong kind, and how its line begins
    "no model": (lambda chat: Chat("smollm2"), "model='smollm2' cannot be used: give a model, as nbllm.load makes it"),
    "a number": (lambda chat: chat(5), "message=5 cannot be used: give text"),
    "nothing": (lambda chat: chat(None), "message=None cannot be used: give text"),
    "bytes": (lambda chat: chat(b"x"), "message=b'x' cannot be used: give text"),
    "a list, to be JSON": (lambda chat: chat(["x"], json=True), "message=['x'] cannot be used: give text"),
    "system": (lambda chat: Chat(chat.model, system=5)("x"), "message={'role': 'system', 'content': 5} cannot be used"),
    "overflow": (lambda chat: Chat(chat.model, overflow=[])("x"), "overflow=[] is unknown; there are drop, stop"),
    "transcript": (lambda chat: Chat(chat.model, transcript=TALK), "transcript=[{'role': 'user', 'content': 'x'}, "),
    "alternatives": (lambda chat: chat("x", alternatives=2.5), "alternatives=2.5 cannot be used"),
    "constraint": (lambda chat: chat("x", constraint=5), "constraint=5 cannot be used"),
    "messages": (lambda chat: setattr(chat, "messages", 5), "messages=5 cannot be used: give a list of messages"),
    "undo": (lambda chat: chat.undo("1"), "'1' cannot be taken back: the conversation is empty"),
    "undo by halves": (lambda chat: chat.undo(0.0), "0.0 cannot be taken back: the conversation is empty"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_argument_of_the_wrong_kind_is_one_line_and_changes_nothing(name):
    chat = Chat(fake_model("a"))
    call, line = WRONG[name]
    with pytest.raises(OptionError) as error:
        call(chat)
    assert str(error.value).startswith(line) and "\n" not in str(error.value)
    assert chat.messages == [] and chat("x").text == "a"


@pytest.mark.parametrize("message", [
    {}, 5, {"role": "user"}, {"role": "user", "content": 5}, {"role": 5, "content": "x"},
    {"role": "user", "content": "x", "reasoning_content": None},
])  # fmt: skip
def test_a_message_of_the_conversation_that_is_no_message_is_one_line(message):
    chat = Chat(fake_model("a"))
    chat.messages = [message, TALK[1]]
    with pytest.raises(OptionError, match="^message=.* cannot be used: give a dict of text, with role and content$"):
        chat("x")
