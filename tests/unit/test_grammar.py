"""Replies that fit a schema: a model that writes garbage must still write what an independent judge accepts."""

import gc
import json
import random
import sys
import weakref

import jsonschema
import numpy as np
import pytest
import vocabularies
from fakes import FakeTokenizer

import nbllm
from nbllm.chat import grammar
from nbllm.chat.schema import Schema
from nbllm.errors import ModelFileError, NbLLMError, OptionError
from nbllm.runtime.events import Done
from nbllm.text import Text
from nbllm.tokenizers import load_tokenizer
from tiny_gguf import write_llama

THINKING = "{{ messages[-1]['content'] }}<think>\n"
SMALL = {"type": "string", "maxLength": 6}


def some_schema(random, depth=0):
    """A schema of some kind, whose texts are not long; random : random.Random."""
    leaves = [
        SMALL,
        {"type": "integer", "minimum": random.randint(-50, 0), "maximum": random.randint(1, 1000)},
        {"type": "boolean"},
        {"type": "null"},
        {"enum": random.sample(["a", "b c", 'q"uote', "ü", "\\", 1, -2.5, None, True, "long " * 4], 3)},
        {"const": random.choice([{"a": [1, "x"]}, "word", 0, False])},
        {"type": "string", "pattern": random.choice(["^[a-f]{2,4}$", r"^\d{3}-\d{2}$", "^(yes|no)$"])},
        {"type": "string", "format": random.choice(["date", "uuid", "ipv4"])},
    ]
    if depth == 2:
        return random.choice(leaves)
    inner = [some_schema(random, depth + 1) for _ in range(3)]
    names = random.sample(["id", "the name", "größe", 'a"b', "properties", "title", "$x"], 3)
    least = random.randint(0, 2)
    shared = {"properties": {name: {"$ref": "#/$defs/one"} for name in ("one", "two")}, "$defs": {"one": inner[0]}}
    return random.choice([
        {"type": "object", "properties": dict(zip(names, inner)), "required": names[:least]},
        {"type": "object", "properties": dict(zip(names, inner)), "required": names, "additionalProperties": False},
        {"type": "array", "items": inner[0], "minItems": least, "maxItems": least + 1},
        {"type": "array", "prefixItems": inner[:2], "items": False, "minItems": 2},
        {"anyOf": inner[:2]},
        *([{"type": "object", **shared, "required": ["two"]}] if depth == 0 else leaves[:1]),
    ])  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A random model: its vocabulary has all bytes, a few words, and the tags of a thought."""
    path = write_llama(tmp_path_factory.mktemp("models") / "garbage.gguf", context=2048)
    with nbllm.load(path) as model:
        yield model


def written(model, schema, seed, prompt="x", guessing=True, **sampling):
    """The text and the reason to end."""
    model.engine.guessing = guessing
    constraint = grammar.constraint(schema, model.tokenizer, prompt)
    options = {
        "temperature": 1.5, "top_k": 0, "top_p": 1, "min_p": 0, "max_tokens": None, "repeat_penalty": 1,
    } | sampling  # fmt: skip
    text, reason = "", None
    for event in model.generate(prompt, constraint=constraint, seed=seed, **options):
        text += event.text if isinstance(event, Text) else ""
        reason = event.finish_reason if isinstance(event, Done) else reason
    return text, reason


@pytest.mark.parametrize("part", range(4))
def test_two_hundred_schemas_are_followed_by_garbage_with_and_without_guesses(model, part):
    for number in range(50 * part, 50 * part + 50):
        given = some_schema(random.Random(number))
        schema = Schema(given)
        text, reason = written(model, schema, number)
        assert reason == "end", (given, text)
        value = schema.value(text)
        for judged in (given, schema.json):  # as it was given, and as it was closed
            jsonschema.Draft202012Validator(judged, format_checker=jsonschema.FormatChecker()).validate(value)
        if number % 5 == 0:
            assert written(model, schema, number, guessing=False) == (text, reason)


def test_numbers_may_go_on_without_end_and_fit_when_they_do_not(model):
    given, ended = {"type": "number", "minimum": -1, "maximum": 10}, 0
    for seed in range(30):
        text, reason = written(model, Schema(given), seed, max_tokens=30)
        if reason == "end":
            ended += 1
            jsonschema.validate(Schema(given).value(text), given)
    assert ended


def test_the_likeliest_text_fits_and_a_seed_gives_the_same(model):
    item = {"type": "object", "properties": {"a": SMALL}, "required": ["a"]}
    schema = Schema({"type": "array", "items": item, "minItems": 3, "maxItems": 3})
    one = written(model, schema, 1, temperature=0)
    assert one == written(model, schema, 2, temperature=0, guessing=False) and one[1] == "end"
    assert written(model, schema, 3) == written(model, schema, 3) != written(model, schema, 4)


def test_what_leaves_no_choice_saves_steps(model, monkeypatch):
    certain = {"a long name": {"const": "and a long value"}}
    schema = Schema({"type": "object", "properties": certain, "required": ["a long name"]})
    steps, step = [], model.engine.step
    monkeypatch.setattr(model.engine, "step", lambda *given: steps.append(given) or step(*given))
    text, _ = written(model, schema, 0)
    with_guesses, steps[:] = len(steps), []
    assert written(model, schema, 0, guessing=False)[0] == text == '{"a long name": "and a long value"}'
    assert with_guesses * 3 < len(steps)


def test_more_that_leaves_no_choice_than_fits_in_a_step_is_written_in_several(model):
    text, reason = written(model, Schema({"const": "xq" * 150}), 0)
    assert (json.loads(text), reason) == ("xq" * 150, "end")


def test_without_a_constraint_the_same_model_writes_no_json(model):
    text = "".join(event.text for event in model.generate("x", seed=0, max_tokens=50) if isinstance(event, Text))
    with pytest.raises(ValueError):
        json.loads(text)


def test_a_chat_tells_the_model_of_the_schema_and_has_the_value(model):
    schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
    chat = nbllm.Chat(model, seed=1)
    reply = chat("Well?", schema=schema, max_tokens=100)
    assert reply.finish_reason == "end" and reply.value in ({"yes": True}, {"yes": False})
    closed = json.dumps(schema | {"additionalProperties": False})
    asked = f"Well?\n\nAnswer with JSON and nothing else, of this JSON schema:\n{closed}"
    assert chat.messages[0]["content"] == asked and asked in model.detokenize(chat.sent)
    chat.retry(schema=schema, max_tokens=100)
    assert chat.messages[0]["content"] == asked


def test_a_reply_that_was_cut_has_its_text_and_no_value(model):
    chat = nbllm.Chat(model, seed=1)
    reply = chat("x", schema={"type": "array", "items": {"const": "word"}, "minItems": 9}, max_tokens=12)
    assert reply.finish_reason == "length" and reply.text.startswith('["word", ')
    for ask in (lambda: reply.value, reply.frame):
        with pytest.raises(NbLLMError, match="no whole JSON, since it was cut .length.: give it more max_tokens"):
            ask()
    stopped = chat("x", schema={"const": "a b"}, stop=" ")
    with pytest.raises(NbLLMError, match="cut .stop.: ask without stop strings"):
        stopped.value
    with pytest.raises(NbLLMError, match="this reply fits no schema"):
        chat("x", max_tokens=3).value


def test_what_would_begin_the_users_next_turn_does_not_cut_an_answer_that_fits(tmp_path):
    metadata = {"general.name": "alpaca", "tokenizer.chat_template": ""}
    with nbllm.load(write_llama(tmp_path / "alpaca.gguf", metadata=metadata, context=1024)) as model:
        chat = nbllm.Chat(model)
        (stop, *_) = chat._prompts.stop
        assert chat("x", schema={"const": f"a{stop}b"}).value == f"a{stop}b"


def test_a_list_of_objects_is_a_data_frame(model):
    row = {"type": "object", "properties": {"n": {"const": 7}, "t": {"const": "x"}}, "required": ["n", "t"]}
    reply = nbllm.Chat(model)("x", schema={"type": "array", "items": row, "minItems": 2, "maxItems": 2}, max_tokens=200)
    assert reply.frame().to_dict("list") == {"n": [7, 7], "t": ["x", "x"]}
    assert nbllm.Chat(model)("x", schema=row, max_tokens=200).frame().to_dict("list") == {"n": [7], "t": ["x"]}
    assert nbllm.Chat(model)("x", schema={"const": 5}).frame().to_dict("list") == {"value": [5]}


# ---- thoughts


def free(model, prompt, pieces, schema=Schema({"const": {"a": 1}})):
    """A constraint that was given these texts, a token a character or a special one."""
    constraint = grammar.constraint(schema, model.tokenizer, prompt)
    for piece in pieces:
        for id in model.tokenizer.encode(piece):
            assert constraint.allowed()[id], piece
            constraint.push(id)
    return constraint


def may(model, constraint):
    return {model.tokenizer.token_bytes(int(id)) for id in np.flatnonzero(constraint.allowed())}


def test_a_thought_that_the_prompt_opened_is_free_until_its_end_and_only_an_answer_ends_the_reply(model):
    thinking = free(model, "<think>\n", ["Hm, {not json} <b> </thin", " hello"])
    allowed = thinking.allowed()
    assert set(np.flatnonzero(~allowed)) == set(model.tokenizer.end_ids)
    answer = free(model, "<think>\n", ["Hm.</think>"])
    assert b"{" in may(model, answer) and b"a" not in may(model, answer) and b"\n" in may(model, answer)
    answer.push(model.tokenizer.encode("\n")[0])
    assert may(model, answer) == {b"{"}
    for id in model.tokenizer.encode('{"a": 1}'):
        answer.push(id)
    assert set(np.flatnonzero(answer.allowed())) == set(model.tokenizer.end_ids)


def test_a_reasoning_models_whole_reply_has_its_thought_apart_and_an_answer_that_fits(tmp_path):
    path = write_llama(tmp_path / "thinks.gguf", metadata={"tokenizer.chat_template": THINKING}, context=1024)
    with nbllm.load(path) as model:
        chat, push = nbllm.Chat(model, seed=0), grammar.Constraint.push
        schema = {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 2}
        reply = chat("x", schema=schema, max_tokens=60)
        assert reply.finish_reason == "length" and reply.text == "" and reply.think  # garbage never closes its thought
        with pytest.raises(NbLLMError, match="was cut"):
            reply.value
        assert push is grammar.Constraint.push
        said, allowed = model.tokenizer.encode("Hm.</think>"), grammar.Constraint.allowed

        def led(constraint):  # the first tokens are given
            mask = allowed(constraint)
            if said:
                assert mask[said[0]]
                mask[:] = False
                mask[said.pop(0)] = True
            return mask

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(grammar.Constraint, "allowed", led)
            reply = chat.retry(schema=schema, max_tokens=60)
        assert (reply.think, reply.finish_reason) == ("Hm.", "end")
        assert [type(each) for each in reply.value] == [bool, bool]


def test_a_model_that_has_a_token_for_it_may_begin_with_a_thought(tmp_path):
    tokenizer = FakeTokenizer()
    tokenizer.vocab_size = 260
    tokenizer.token_bytes = lambda id: b"<think>" if id == 259 else FakeTokenizer.token_bytes(tokenizer, id)
    constraint = grammar.constraint(Schema({"const": 1}), tokenizer, "")
    assert set(np.flatnonzero(constraint.allowed())) == {259, ord("1")}
    constraint.push(259)
    assert constraint.allowed()[ord("x")] and not constraint.allowed()[257] and constraint.likely() == []
    for byte in b"x</think>":
        constraint.push(byte)
    assert constraint.allowed()[ord("1")] and not constraint.allowed()[259]


# ---- vocabularies


@pytest.mark.parametrize("name", ["bert-bge", "phi-3", "qwen2", "gpt-2"])
def test_every_kind_of_tokenizer_writes_what_fits_whichever_token_is_chosen(name):
    ends = {"tokenizer.ggml.eos_token_id": 102} if name == "bert-bge" else {}
    tokenizer = load_tokenizer(vocabularies.read(name) | ends)
    given = {"type": "object", "properties": {"the name": SMALL, "b": {"enum": ["x y", "x z"]}, "c": {"type": "integer",
             "maximum": 99, "minimum": 1}, "d": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2}},
             "required": ["the name", "b", "c", "d"]}  # fmt: skip
    for seed in range(10):
        choose, constraint, ids = random.Random(seed), grammar.constraint(Schema(given), tokenizer, ""), []
        while True:
            guesses, allowed = constraint.likely(), np.flatnonzero(constraint.allowed())
            assert not guesses or guesses[0] in allowed
            id = int(choose.choice(allowed))
            if id in tokenizer.end_ids:
                break
            constraint.push(id)
            ids.append(id)
        text = tokenizer.decode(ids, start=False)
        jsonschema.validate(json.loads(text), given)
        assert list(json.loads(text)) == ["the name", "b", "c", "d"]


def test_a_vocabulary_is_made_ready_once_and_ends_with_its_tokenizer():
    tokenizer = FakeTokenizer()
    first = grammar.constraint(Schema("json"), tokenizer, "")
    assert grammar.constraint(Schema("json"), tokenizer, "")._vocabulary is first._vocabulary
    gone = weakref.ref(tokenizer)
    del first, tokenizer
    gc.collect()
    assert gone() is None


def test_a_model_that_ends_no_reply_is_refused_in_one_line():
    tokenizer = FakeTokenizer()
    tokenizer.end_ids = frozenset()
    with pytest.raises(ModelFileError, match="no token that ends a reply"):
        grammar.constraint(Schema("json"), tokenizer, "")


def test_what_the_vocabulary_cannot_write_is_one_line():
    tokenizer = load_tokenizer(vocabularies.read("bert-bge") | {"tokenizer.ggml.eos_token_id": 102})
    constraint = grammar.constraint(Schema({"const": "A"}), tokenizer, "")  # it has small letters only
    with pytest.raises(NbLLMError, match="the schema cannot be followed any further") as error:
        for _ in range(3):
            constraint.push(int(np.flatnonzero(constraint.allowed())[0]))
    assert "\n" not in str(error.value)


# ---- what cannot be done


HOSTILE = {
    "another file": {"$ref": "https://example.com/schema.json"},
    "a keyword that is not done": {"type": "array", "uniqueItems": True},
    "nothing fits": {"type": "string", "minLength": 5, "maxLength": 2},
    "a type that is none": {"type": "text"},
    "a pattern that is none": {"type": "string", "pattern": "("},
    "a pattern that looks ahead": {"type": "string", "pattern": "^(?=.*a).{8,}$"},
    "branches": {"allOf": [{"anyOf": [{"properties": {f"{i}{j}": {"const": 0}}} for j in range(9)]} for i in range(9)]},
    "too much to try": {"type": "integer", "multipleOf": 10**9 + 7, "minimum": 0},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_schema_that_cannot_be_done_is_one_line(name):
    with pytest.raises(OptionError, match="the schema cannot be used") as error:
        grammar.check(Schema(HOSTILE[name]))  # before a model is there; the last is found with one
        grammar.constraint(Schema(HOSTILE[name]), FakeTokenizer(), "")
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_an_interrupt_while_llguidance_asks_for_ids_is_an_interrupt(model, monkeypatch):
    chat, options = nbllm.Chat(model), {"schema": {"const": "one and the same"}, "seed": 1}
    whole = chat("hello", **options).text
    chat.undo()
    events, encode, came = chat.stream("hello", **options), type(model.tokenizer).encode, []
    next(events)

    def interrupted(*arguments):
        came.append(1)
        if len(came) == 1:
            raise KeyboardInterrupt
        return encode(*arguments)

    monkeypatch.setattr(type(model.tokenizer), "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(events)
    assert came and chat("hello", **options).text == whole


def test_without_llguidance_it_is_said_what_to_install(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(NbLLMError, match=r'pip install "nbllm\[grammar\]"'):
        nbllm.Chat(model)("x", json=True)
