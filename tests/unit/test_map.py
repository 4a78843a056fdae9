"""Many prompts: the answers that each would get alone, in the shape in which the prompts came."""

import dataclasses
import itertools
import typing
from types import SimpleNamespace

import numpy as np
import pandas
import polars
import pytest
from IPython.core.interactiveshell import InteractiveShell
from tiny_gguf import write_llama

import nbllm
from nbllm.chat.columns import Rows
from nbllm.chat.reply import Reply
from nbllm.errors import ContextFullError, NbLLMError, OptionError, Stopped
from nbllm.jupyter.magics import ChatMagics
from nbllm.runtime.events import StopFlag

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
    wide = pandas.DataFrame([range(1000)])
    for template, words in ((None, "has the columns 0, 1, .*19 and 980 more"), ("c", "none of 0, 1, .* and 980 more")):
        with pytest.raises(OptionError, match=words):
            Rows(wide, template)


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
    assert nbllm.map([], model, template="{text}", progress=False) == []
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


@pytest.mark.parametrize("changed", ["context", "cache_bits", "file", None])
def test_what_another_model_has_answered_is_asked_again(tmp_path, changed):
    path, texts = write_llama(tmp_path / "a.gguf"), ["x" * 150, *TEXTS]

    def part(rows, **how):
        with nbllm.load(path, **{"context": 100} | how) as model:
            steps = rows.steps(nbllm.Chat(model), StopFlag())
            while next(steps).done < 3:
                pass
            steps.close()

    part(nbllm.Map(texts, path, **OPTIONS))
    if changed == "file":
        write_llama(path, seed=2)
    again = nbllm.Map(texts, path, **OPTIONS)
    kept, error = again.replies, again.replies[0]
    assert isinstance(error, ContextFullError) and again.progress.done == 3
    how = {"context": {"context": 200}, "cache_bits": {"cache_bits": 8}}.get(changed, {})
    with nbllm.load(path, **{"context": 100} | how) as model:
        list(again.steps(nbllm.Chat(model), StopFlag()))
        fresh = nbllm.Map(texts, model, **OPTIONS)
        list(fresh.steps(nbllm.Chat(model), StopFlag()))
    assert list(map(str, again.replies)) == list(map(str, fresh.replies))
    assert (again.replies[0] is error) == (again.replies is kept) == (changed is None)


def test_what_has_come_is_told_as_it_is(model):
    rows = nbllm.Map(["a", None, "b", None], model, **OPTIONS)
    told = list(rows.steps(nbllm.Chat(model), StopFlag()))
    assert [step.done for step in told] == [1, 2, 3, 4] and told[-1] == rows.progress
    assert sorted(step.failed for step in told)[-1] == rows.progress.failed == 2
    assert rows.progress.total == 4 == len({step.done for step in told})


def test_what_the_answers_would_be_called_is_kept_while_there_are_none(monkeypatch):
    def fails(*_):
        raise NbLLMError("no model")

    shell = InteractiveShell()
    magics = ChatMagics(shell)
    shell.magics_manager.register(magics)
    monkeypatch.setattr("nbllm.jupyter.each.run", fails)
    monkeypatch.setattr("nbllm.jupyter.each.session", lambda config: SimpleNamespace(map=lambda rows: rows))
    monkeypatch.setattr("nbllm.jupyter.each.output", lambda shell: None)
    shell.user_ns |= {"rows": ["a", "b"], "found": ["yes", "no"]}
    with pytest.raises(NbLLMError, match="no model"):
        magics.ask("--each rows -o found", "prompt")
    assert shell.user_ns["found"] == ["yes", "no"]


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


class Text:
    def __str__(self):
        raise RuntimeError("no text")

    def __ne__(self, other):
        raise RuntimeError("no equal")


def endless():
    yield "a"
    raise RuntimeError("torn")


def test_a_row_that_cannot_be_told_is_an_error_in_its_place_and_ends_no_other(model):
    answers = nbllm.map(["Hm", Text(), 10**5000, "Hm"], model, progress=False, **OPTIONS)
    assert [type(answer) for answer in answers] == [str, OptionError, OptionError, str]
    assert str(answers[1]) == "row 1 cannot be told as text: RuntimeError: no text"
    assert isinstance(Rows([{"a": Text()}], "{a}").prompts[0], OptionError)


def test_two_columns_of_a_name_are_refused_only_where_the_template_means_them():
    frame = pandas.DataFrame([[1, 2, "x"], [3, 4, "y"]], columns=["a", "a", "b"])
    assert Rows(frame, "{b}").prompts == ["x", "y"]
    with pytest.raises(OptionError, match="2 columns of the name 'a'"):
        Rows(frame, "{a} {b}")


def test_a_field_that_only_other_rows_have_is_an_error_in_its_place():
    prompts = Rows([{"a": 1}, {"a": 2, "b": 3}, "x"], "{a} {b} {c}").prompts
    assert list(map(str, prompts)) == ["row 0 has no b", "2 3 {c}", "row 2 has no a"]


def test_a_column_named_as_what_tables_have_is_a_column():
    frame = pandas.DataFrame({"name": ["x", "y"], "columns": [1, 2]})
    assert Rows(frame, "{name}{columns}").prompts == ["x1", "y2"]
    assert Rows(frame.iloc[0], "<{}>").prompts == ["<x>", "<1>"]


@pytest.mark.parametrize("data", [
    pandas.Index(["a", "b"]), pandas.Series(["a", "b", "a"]).unique(), pandas.array(["a", "b"]),
    pandas.Categorical(["a", "b"]),
])  # fmt: skip
def test_pandas_own_arrays_are_arrays(data):
    rows = Rows(data)
    assert rows.prompts == ["a", "b"] and rows.column(["x", None]).tolist() == ["x", None]


@pytest.mark.parametrize(("data", "words"), [
    (itertools.repeat("x"), "or no end"),
    (endless(), "after 1 rows: RuntimeError: torn"),
    (pandas.Timestamp(0), "one cannot go"),
    (pandas.DataFrame(index=range(3)), "no columns"),
    (pandas.DataFrame({"a": range(1001)}), "or no end"),
    (polars.LazyFrame({"a": [1]}), "collect"),
    (type("Odd", (), {"columns": 5})(), "columns of prompts, a Odd, cannot be read"),
    (5, "one cannot go"),
])  # fmt: skip
def test_what_has_no_rows_to_go_through_is_one_line(data, words, monkeypatch):
    monkeypatch.setattr("nbllm.chat.columns.MOST", 1000)
    with pytest.raises(OptionError, match=words):
        Rows(data, "{}")


def test_what_has_no_end_is_left_after_an_interrupt():
    def rows():
        yield "a"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Rows(rows())


@pytest.mark.parametrize("wrong", [{"template": 5}, {"model": 5}, {"system": 5}])
def test_an_argument_of_a_wrong_type_is_one_line(wrong):
    with pytest.raises(OptionError, match="type int"):
        nbllm.Map(["a"], **wrong)


MIXED = [
    [1, "a"], [10**400, 1], [1] * 200 + ["x"], [True, 5], [[1], ["a"]], [[1], [0.5]], [{"a": 1}, {"a": 1, "b": 2}],
    [{"a": 1}, 5], [None, [1]], [1, 2.5], [10**30, None], ["\ud800", "a"], [[], {}],
]  # fmt: skip


@pytest.mark.parametrize("values", MIXED, ids=lambda values: repr(values)[:30])
@pytest.mark.parametrize("library", [pandas, polars])
def test_a_column_holds_what_was_answered(library, values):
    def filled(value):
        """A field that others of the column have, and which is None in this one, says nothing."""
        return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value

    rows = Rows(library.Series(["?"] * len(values)))
    assert [filled(value) for value in rows.column(values).to_list()] == values
    table = rows.table([{"a": value} for value in values])
    assert len(table) == len(values) and [filled(value) for value in table["a"].to_list()] == values
    if library is polars and values == [1, 2.5]:
        assert table["a"].dtype == polars.Float64


@dataclasses.dataclass
class Picky:
    legs: typing.Literal[2, 4]
    refuses: typing.ClassVar = LookupError

    def __post_init__(self):
        if Picky.refuses:
            raise Picky.refuses("no such animal")


@pytest.mark.parametrize("library", [pandas, polars, None])
def test_answers_that_a_class_refuses_are_there_when_it_is_mended(roomy, library, monkeypatch):
    def ask():
        prompts = library.Series(TEXTS) if library else TEXTS
        return nbllm.Map(prompts, roomy, schema=Picky, temperature=1.0, max_tokens=60)

    first = ask()
    answers = first.run(progress=False)
    refused = list(answers["error"]) if library else list(map(str, answers))
    assert all("does not become Picky: LookupError: no such animal" in line for line in refused)
    monkeypatch.setattr(Picky, "refuses", None)
    again = ask()
    assert [reply.tokens for reply in again.replies] == [reply.tokens for reply in first.replies]
    again.run(progress=False)
    assert ask().progress.done == 0


def test_answers_that_a_class_refuses_are_there_when_it_is_defined_again(roomy):
    def ask(refuses):
        def check(self):
            if refuses:
                raise LookupError("no such animal")

        name = dataclasses.make_dataclass("Again", [("legs", typing.Literal[2, 4])], namespace={"__post_init__": check})
        return nbllm.Map(TEXTS, roomy, schema=name, temperature=1.0, max_tokens=60), name

    first, _ = ask(True)
    assert all(isinstance(answer, NbLLMError) for answer in first.run(progress=False))
    again, name = ask(False)
    assert again.progress.done == len(TEXTS)
    assert all(type(answer) is name for answer in again.run(progress=False))


def test_a_field_error_of_the_objects_is_kept(roomy):
    schema = {"type": "object", "properties": {"error": {"const": "disk"}}, "required": ["error"]}
    table = nbllm.map(pandas.Series(["a", None]), roomy, schema=schema, progress=False, **OPTIONS | {"max_tokens": 60})
    assert list(table.columns) == ["error", "error_"]
    assert table["error"][0] == "disk" and "row 1 has no text" in table["error_"][1]


def test_answers_of_which_no_table_can_be_made_are_a_list(roomy, capsys):
    schema = {"type": "object", "properties": {"\\ud800": {"const": 1}}, "required": ["\\ud800"]}
    rows = nbllm.Map(polars.Series(["a"]), roomy, schema=schema, **OPTIONS | {"max_tokens": 60})
    rows.replies = [Reply('{"\\ud800": 1}', None, "end", 5, schema=rows._schema)]
    assert rows.results == [{"\ud800": 1}]
    assert "nbllm: the answers are a list" in capsys.readouterr().err
