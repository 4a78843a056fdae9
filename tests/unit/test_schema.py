"""What describes a reply, as a JSON schema; and what its text becomes."""

import dataclasses
import datetime
import enum
import json
from collections.abc import Callable
from typing import Annotated, Literal

import pydantic
import pytest
from IPython.core.interactiveshell import InteractiveShell

from nbllm.chat.grammar import wanted
from nbllm.chat.schema import LARGEST, Schema
from nbllm.errors import NbLLMError, OptionError


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.0


@dataclasses.dataclass
class Shape:
    name: str
    colour: Colour
    points: list[Point]
    kind: Literal["open", "closed"]
    made: datetime.date | None
    tags: dict[str, int]
    other: Point | None = None
    number: int = dataclasses.field(default=7, init=False)


@dataclasses.dataclass
class Ring:
    next: "Ring"


@dataclasses.dataclass
class Misspelt:
    made: "datetime.Date"


@dataclasses.dataclass
class Sentence:
    name: "the name"


class Secret(type):
    def __getattr__(cls, name):
        raise RuntimeError("none of your business")


class Hidden(metaclass=Secret):
    pass


class Button(pydantic.BaseModel):
    pressed: Callable


class Broken(dict):
    def items(self):
        raise RuntimeError("no items")


@dataclasses.dataclass
class Positive:
    x: int

    def __post_init__(self):
        if self.x < 1:
            raise LookupError("too small")


class City(pydantic.BaseModel):
    """A place."""

    name: str = pydantic.Field(description="in English")
    inhabitants: int = pydantic.Field(ge=0)

    @pydantic.field_validator("name")
    @classmethod
    def known(cls, name):
        if name == "Nowhere":
            raise ValueError("there is no such place")
        return name


POINT = {"type": "object", "properties": {"x": {"type": "integer"}, "y": {"type": "number"}}, "required": ["x"],
         "additionalProperties": False}  # fmt: skip
CITY = {"description": "A place.", "properties": {"name": {"description": "in English", "type": "string"},
        "inhabitants": {"minimum": 0, "type": "integer"}}, "required": ["name", "inhabitants"], "type": "object",
        "additionalProperties": False}  # fmt: skip


@pytest.mark.parametrize(("what", "schema"), [
    (int, {"type": "integer"}),
    (list[str], {"type": "array", "items": {"type": "string"}}),
    (Literal["yes", "no"], {"enum": ["yes", "no"]}),
    (float | None, {"anyOf": [{"type": "number"}, {"type": "null"}]}),
    (Annotated[list[bool], {"maxItems": 3}], {"type": "array", "items": {"type": "boolean"}, "maxItems": 3}),
    (Point, POINT),
    (list[Point], {"type": "array", "items": POINT}),
    (City, CITY),
    ("json", {"anyOf": [{"type": "object"}, {"type": "array"}]}),
])  # fmt: skip
def test_a_type_is_described(what, schema):
    assert Schema(what).json == schema


def test_a_list_of_a_pydantic_model_and_a_dataclass_of_all_kinds_are_described():
    assert Schema(list[City]).json == {"type": "array", "items": {"$ref": "#/$defs/City"}, "$defs": {"City": CITY}}
    shape = Schema(Shape).json
    assert shape["required"] == ["name", "colour", "points", "kind", "made", "tags"]
    assert "number" not in shape["properties"]
    assert shape["properties"]["made"] == {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]}
    assert shape["properties"]["tags"] == {"type": "object", "additionalProperties": {"type": "integer"}}


@pytest.mark.parametrize(("what", "text", "value"), [
    (list[Point], '[{"x": 1}, {"x": 2, "y": 3}]', [Point(1), Point(2, 3.0)]),
    (City, '{"name": "Rome", "inhabitants": 5}', City(name="Rome", inhabitants=5)),
    (list[City], '[{"name": "Rome", "inhabitants": 5}]', [City(name="Rome", inhabitants=5)]),
    (float, "2", 2.0),
    (Point | None, "null", None),
    (Literal[1, "a"], '"a"', "a"),
    (Positive | Point, '{"x": 0}', Point(0)),
    ({"type": "object"}, '{"a": [1]}', {"a": [1]}),
    (Shape, '{"name": "s", "colour": "red", "points": [{"x": 1}], "kind": "open", "made": "2024-02-29", '
     '"tags": {"t": 1}, "other": {"x": 5}}',
     Shape("s", Colour.RED, [Point(1)], "open", datetime.date(2024, 2, 29), {"t": 1}, Point(5))),
])  # fmt: skip
def test_a_text_becomes_what_was_asked_for(what, text, value):
    made = Schema(what).value(text)
    assert made == value and type(made) is type(value)
    if what is float:
        assert isinstance(made, float)


@pytest.mark.parametrize(("what", "text"), [
    (City, '{"name": "Nowhere", "inhabitants": 5}'), (datetime.date, '"2023-02-31"'), (int, "1" * 5000), ({}, "[1"),
    (float, "1" + "0" * 400), (Positive, '{"x": 0}'),
])  # fmt: skip
def test_what_the_type_refuses_is_one_line(what, text):
    with pytest.raises(NbLLMError, match="the reply does not become ") as error:
        Schema(what).value(text)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_class_in_unions_in_unions_is_made_once():
    made = []
    inner = dataclasses.make_dataclass("Inner", [("a", int)], namespace={"__post_init__": lambda self: made.append(1)})
    for _ in range(20):
        inner = dataclasses.make_dataclass("Outer", [("a", inner | None)])
    Schema(inner).value('{"a": ' * 20 + '{"a": 1}' + "}" * 20)
    assert len(made) == 1


def test_objects_are_closed_unless_that_would_contradict_what_stands_beside():
    properties = {"properties": {"properties": {}}, "title": {"type": "string", "title": "T"}}
    inner = {"type": "object", "properties": properties}
    assert Schema({"title": "All", "anyOf": [inner, {"const": {"title": "kept"}}]}).json == {"anyOf": [
        {"type": "object", "properties": {"properties": {"properties": {}, "additionalProperties": False},
         "title": {"type": "string"}}, "additionalProperties": False}, {"const": {"title": "kept"}},
    ]}  # fmt: skip
    for schema in (
        {"properties": {"a": {}}, "anyOf": [{"required": ["a"]}, {"properties": {"b": {}}}]},
        {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},
        {"properties": {"a": {}}, "additionalProperties": True},
        {"properties": {"a": {}}, "patternProperties": {"^b": {}}},
    ):
        assert Schema(schema).json == schema


def nested(depth):
    schema = {}
    for _ in range(depth):
        schema = {"items": schema}
    return schema


def doubled(depth, around, schema):
    """What stands twice in what stands twice in ..."""
    for _ in range(depth):
        schema = around(schema)
    return schema


def listed(depth):
    what = int
    for _ in range(depth):
        what = list[what]
    return what


@pytest.mark.parametrize(("what", "message"), [
    (doubled(40, lambda part: {"properties": {"a": part, "b": part}}, {}), "the schema is too large"),
    (doubled(40, lambda part: {"anyOf": [part, part]}, {}), "the schema is too large"),
    ({"enum": doubled(40, lambda part: [part, part], [1])}, "the schema is too large"),
    (doubled(40, lambda part: dataclasses.make_dataclass("Pair", [("a", part), ("b", part)]), int), "is too large"),
    (doubled(40, lambda part: dict[str, list[part] | dict[str, part]], int), "is too large"),
    ({"enum": ["x" * 1000] * 1000}, "the schema is too large"),
    (listed(3000), "RecursionError"),
    (Misspelt, "Misspelt has a field of an unknown type: AttributeError: module 'datetime' has no attribute 'Date'"),
    (Sentence, "Sentence has a field of an unknown type: SyntaxError"),
    (Hidden, "the schema cannot be read: RuntimeError: none of your business"),
    (Button, "Button'> has no JSON schema: PydanticInvalidForJsonSchema"),
    (Broken(type="object"), "RuntimeError: no items"),
    (object, "is no schema: give a JSON schema, a dataclass"),
    (5, "5 is no schema"),
    (Ring, "Ring holds itself"),
    ({"enum": [object()]}, "is no JSON schema"),
    ({"enum": [float("nan")]}, "is no JSON schema"),
    ({"const": "x" * LARGEST}, "is too large"),
    (nested(1000), "nested more than 64 deep"),
    ("no/such.json", "there is no schema 'no/such.json'"),
    ("~nobody-of-this-name/such.json", "there is no such home folder"),
    ("a\0b", "is no JSON schema|there is no schema"),
])  # fmt: skip
def test_what_is_no_schema_is_one_line(what, message):
    with pytest.raises(OptionError, match=message) as error:
        Schema(what)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


def test_a_list_in_lists_without_end_is_refused_in_a_cell():
    from nbllm.jupyter.arguments import parse
    from nbllm.jupyter.schemas import schema as named

    with pytest.raises(OptionError, match="nested more than 64 deep"):
        named(InteractiveShell(), parse(f"--schema {'list[' * 3000}int{']' * 3000}")[0])


def test_a_file_of_json_is_a_schema_and_no_other_file(tmp_path):
    path = tmp_path / "s.json"
    path.write_text(json.dumps(POINT))
    assert Schema(path).json == Schema(str(path)).json == POINT
    for data in (b"{", b"[1]", b"[" * 10_000, b"\xff"):
        path.write_bytes(data)
        with pytest.raises(OptionError, match="is no JSON schema"):
            Schema(path)


def test_the_message_tells_the_schema_once():
    schema = Schema({"type": "integer", "title": "N"})
    asked = schema.ask("How many?")
    assert asked == 'How many?\n\nAnswer with JSON and nothing else, of this JSON schema:\n{"type": "integer"}'
    assert schema.ask(asked) == asked
    assert Schema("json").ask("?") == "?\n\nAnswer with JSON and nothing else."


def test_json_and_a_schema_together_are_refused():
    with pytest.raises(OptionError, match="both given"):
        wanted({}, json=True)


@pytest.mark.parametrize(("line", "schema"), [
    ("--schema Point", POINT),
    ("--schema list[Point]", {"type": "array", "items": POINT}),
    ("--schema list[str]", {"type": "array", "items": {"type": "string"}}),
    ("--schema held", {"const": 1}),
    ("--schema house.Point", POINT),
    ("--json", Schema("json").json),
])
def test_a_cell_names_a_variable_a_class_or_a_list_of_one(line, schema):
    from nbllm.jupyter.arguments import parse
    from nbllm.jupyter.magics import ChatMagics
    from nbllm.jupyter.schemas import schema as named

    shell = InteractiveShell()
    shell.magics_manager.register(ChatMagics(shell))
    shell.user_ns |= {"Point": Point, "held": {"const": 1}, "house": type("house", (), {"Point": Point})}
    assert named(shell, parse(line)[0]).json == schema
    assert named(shell, parse("")[0]) is None
    for wrong in ("--schema Pont", "--schema list[held]", "--schema os.system('x')"):
        with pytest.raises(OptionError, match="there is no schema|is no class"):
            named(shell, parse(wrong.replace("'", ""))[0])
