"""Many prompts: the answers that each would get alone, in the shape in which the prompts came."""

import dataclasses
import typing

import numpy as np
import pandas
import polars
import pytest
from tiny_gguf import write_llama

import nbllm
from nbllm.chat.columns import Rows
from nbllm.errors import ContextFullError, OptionError, Stopped

TEXTS = ["What is a cat?", "What is a dog, and why?", "Hm", "Name three birds.", "x" * 50, "What is a cat?"]
OPTIONS = {"temperature": 1.0, "seed": 5, "max_tokens": 9}


@pytest.fixture
def model(tiny_model):
    with nbllm.load(tiny_model) as model:
        yield model


def alone(model, texts, system=None, stop=()):
    answers = []
    for number, text in enumerate(texts):
        answers.append(nbllm.Chat(model, system)(text, **OPTIONS | {"seed": 5 + number, "stop": stop}).text)
    return answers


def test_every_row_gets_the_answer_that_it_would_get_alone(model):
    answers = nbllm.map(TEXTS, model, progress=False, **OPTIONS)
    assert answers == alone(model, TEXTS) and len(set(answers)) > 3
    assert nbllm.map((text for text in TEXTS), model, system="Be brief.", progress=False, **OPTIONS) == alone(
        model, TEXTS, "Be brief."
    )


def test_stop_strings_end_rows(model):
    whole = alone(model, TEXTS)
    stop = whole[1][2:4]
    assert stop and nbllm.map(TEXTS, model, progress=False, stop=stop, **OPTIONS) == alone(model, TEXTS, stop=stop)


def test_a_conversation_is_gone_on_with_by_every_row_and_stays_as_it_is(model):
    chat = nbllm.Chat(model)
    chat("Talk of animals.", **OPTIONS)
    messages, expected = chat.messages, []
    for number, text in enumerate(TEXTS):
        expected.append(chat(text, **OPTIONS | {"seed": 5 + number}).text)
        chat.undo()
    assert chat.map(TEXTS, progress=False, **OPTIONS) == expected
    assert chat.messages == messages


@pytest.mark.parametrize("library", [pandas, polars])
def test_a_column_comes_back_as_a_column(model, library):
    frame = library.DataFrame({"id": range(6), "text": TEXTS})
    for answers in (
        nbllm.map(frame["text"], model, progress=False, **OPTIONS),
        nbllm.map(frame, model, template="{text}", progress=False, **OPTIONS),
    ):
        assert type(answers) is library.Series and list(answers) == alone(model, TEXTS)


def test_a_pandas_index_and_an_array_s_kind_are_kept(model):
    column = pandas.Series(TEXTS[:3], index=["a", "b", "c"], name="text")
    assert list(nbllm.map(column, model, progress=False, **OPTIONS).index) == ["a", "b", "c"]
    array = nbllm.map(np.array(TEXTS[:3]), model, progress=False, **OPTIONS)
    assert isinstance(array, np.ndarray) and array.tolist() == alone(model, TEXTS[:3])


def test_a_template_names_columns_and_leaves_other_braces():
    frame = pandas.DataFrame({"a": [1, 2], "b": ["{a}", None]})
    rows = Rows(frame, "{a} of {b}: {c} {{a}}")
    assert rows.prompts[0] == "1 of {a}: {c} {1}"
    assert isinstance(rows.prompts[1], OptionError) and "row 1 has no b" in str(rows.prompts[1])
    assert Rows(["x", 3], "<{}>").prompts == ["<x>", "<3>"]
    assert Rows(pandas.Series(["x"], name="t"), "<{t}{}>").prompts == ["<xx>"]
    assert Rows([{"q": "x"}], "<{q}>").prompts == ["<x>"]
    for wrong, words in ((frame, "needs a template"), ("text", "one text"), (3, "give a list")):
        with pytest.raises(OptionError, match=words):
            Rows(wrong)
    with pytest.raises(OptionError, match="names none of a, b"):
        Rows(frame, "{c}")


@pytest.mark.parametrize("library", [pandas, polars, None])
def test_a_row_that_fails_is_an_error_in_its_place(model, library):
    texts = ["a", None, "long " * 400, "d"]
    column = library.Series(texts) if library else texts
    answers = list(nbllm.map(column, model, progress=False, **OPTIONS))
    assert isinstance(answers[1], OptionError) and isinstance(answers[2], ContextFullError)
    assert [answers[0], answers[3]] == [
        alone(model, texts[:1])[0],
        nbllm.Chat(model)("d", **OPTIONS | {"seed": 8}).text,
    ]


def test_nothing_is_nothing(model):
    assert nbllm.map([], model, progress=False) == []
    assert list(nbllm.map(pandas.Series([], dtype=object), model, progress=False)) == []


def test_after_an_interrupt_the_same_call_goes_on(model, monkeypatch):
    texts = [f"{text} {n}" for n in range(10) for text in TEXTS]
    options = {name: value for name, value in OPTIONS.items() if name != "seed"}
    first = nbllm.Map(texts, model, **options)
    step, steps = type(model.batch()).step, []

    def interrupted(batch, stop):
        steps.append(1)
        if len(steps) == 14:
            raise KeyboardInterrupt
        return step(batch, stop)

    monkeypatch.setattr("nbllm.runtime.batch.Batch.step", interrupted)
    with pytest.raises(Stopped, match="of 60 rows"):
        first.run(progress=False)
    kept = first.results
    done = sum(answer is not None for answer in kept)
    assert 0 < done < 60 and repr(first) == f"<Map: {done} of 60 rows answered>"
    again = nbllm.Map(texts, model, **options)
    assert again.results == kept  # and the seed, though none was given
    answers = again.run(progress=False)
    assert [answer for answer, before in zip(answers, kept, strict=True) if before is not None] == list(
        filter(None, kept)
    )
    assert nbllm.Map(texts, model, **options).progress.done == 0  # what came to its end is asked anew
    assert first.run(progress=False) == answers


SCHEMA = {
    "type": "object",
    "properties": {"animal": {"type": "boolean"}, "legs": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["animal", "legs"],
}


@dataclasses.dataclass
class Animal:
    animal: bool
    legs: typing.Literal[2, 4]


@pytest.fixture
def roomy(tmp_path):
    """A model whose context has room for a schema."""
    with nbllm.load(write_llama(tmp_path / "roomy.gguf", metadata={"llama.context_length": 1024})) as model:
        yield model


def test_answers_that_fit_a_schema_are_those_that_chat_would_get(roomy):
    model = roomy
    alone = [
        nbllm.Chat(model)(text, schema=SCHEMA, **OPTIONS | {"seed": 5 + n, "max_tokens": 60}).value
        for n, text in enumerate(TEXTS)
    ]
    answers = nbllm.map(TEXTS, model, schema=SCHEMA, progress=False, **OPTIONS | {"max_tokens": 60})
    assert answers == alone and all(type(answer["animal"]) is bool for answer in answers)
    animals = nbllm.map(TEXTS, model, schema=Animal, progress=False, **OPTIONS | {"max_tokens": 60})
    assert all(type(animal) is Animal and animal.legs in (2, 4) for animal in animals)


@pytest.mark.parametrize("library", [pandas, polars])
def test_objects_become_a_table_with_typed_columns(roomy, library):
    model = roomy
    column = library.Series(TEXTS)
    table = nbllm.map(column, model, schema=SCHEMA, progress=False, **OPTIONS | {"max_tokens": 60})
    assert type(table) is library.DataFrame and list(table.columns) == ["animal", "legs"]
    assert [str(kind).lower() for kind in table.dtypes] in (["bool", "int64"], ["boolean", "int64"])
    cut = nbllm.map(
        library.Series([*TEXTS, None]), model, schema=SCHEMA, progress=False, **OPTIONS | {"max_tokens": 60}
    )
    assert list(cut.columns) == ["animal", "legs", "error"] and "row 6 has no text" in list(cut["error"])[-1]
    short = nbllm.map(column, model, schema=SCHEMA, progress=False, **OPTIONS | {"max_tokens": 2})
    assert all("cut (length)" in error for error in short["error"])
