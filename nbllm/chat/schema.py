"""What a reply has to look like, as a JSON schema, from whatever describes it in Python; and what its text becomes.

A schema is a dict or a file of JSON; a type is described by one and has its values made of what was read. Knows nothing
of tokens and models, and never runs what it reads.
"""

import dataclasses
import datetime
import enum
import json
import sys
import types
import typing
from pathlib import Path

from nbllm.errors import NbLLMError, OptionError, brief, quoted
from nbllm.paths import expanded, opened

LARGEST = 1 << 18  # bytes of a schema, written compactly; each token of the prompt tells of some four
DEEPEST = 64  # schemas in each other
ANY = {"anyOf": [{"type": "object"}, {"type": "array"}]}  # what is asked for by "JSON" alone
SIMPLE = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
DATES = {datetime.datetime: "date-time", datetime.date: "date", datetime.time: "time"}
TOO_LARGE = f"{{}} is too large: it has more than {LARGEST:,} bytes, the most of a schema"
NESTED = f"the schema is nested more than {DEEPEST} deep; make it flatter"
ASK = "Answer with JSON and nothing else, of this JSON schema:\n{}"
ASK_ANY = "Answer with JSON and nothing else."

_COMBINE = {"allOf", "anyOf", "oneOf", "not", "if", "$ref", "$dynamicRef", "dependentSchemas"}
_NAMED = {"properties", "patternProperties", "$defs", "definitions"}  # keywords that hold schemas by name
_DATA = {"const", "enum", "default", "examples"}  # and those that hold what is no schema


class Schema:
    """
    Parameters
    ----------
    what : dict, type, str or path
        A JSON schema, or the name of a file that holds one; a dataclass, a Pydantic model, a type such as
        `list[Model]`, `int`, `Literal["yes", "no"]`; or "json" for any object or list.

    Attributes
    ----------
    json : dict
        The JSON schema. Objects have no properties but those that are named, unless it says so.
    name : str
        For messages.

    Raises
    ------
    OptionError
        It describes nothing that can be written as JSON.
    """

    def __init__(self, what):
        self._type = None
        self.any = isinstance(what, str) and what == "json"
        self.name = "JSON" if self.any else str(what) if isinstance(what, (str, Path)) else "the schema"
        try:
            schema = self._json(what)
            _measure(schema, self.name)
            if self._type is not None:  # not before: the name of a type is as long as its schema
                self.name = what.__name__ if isinstance(what, type) and not typing.get_args(what) else str(what)
            self.json = _tidy(schema)
        except NbLLMError:
            raise
        except Exception as error:  # of what the user's classes are made of
            raise OptionError(f"{self.name} cannot be read: {brief(error)}") from error
        self.text = _dumps(self.json, self.name)

    def _json(self, what):
        if self.any:
            return ANY
        if isinstance(what, (str, Path)):
            return _read(Path(what))
        if isinstance(what, dict):
            return what
        self._type = what
        return _described(what)

    def ask(self, message: str) -> str:
        """The message, and below it what to answer with, unless it says so already."""
        asked = ASK_ANY if self.any else ASK.format(self.text)
        return message if message.endswith(asked) else f"{message}\n\n{asked}"

    def value(self, text: str):
        """What this text, which fits the schema, says: an instance of the type, or what `json.loads` makes of it.

        Raises
        ------
        NbLLMError
            The type refuses it, for a reason that its schema does not tell.
        """
        try:
            if self._type is not None and _pydantic(self._type):
                return _adapter(self._type).validate_json(text)
            value = json.loads(text)
            return value if self._type is None else _made(self._type, value)
        except Exception as error:  # the user's own class may raise anything
            reason = brief(error)
            raise NbLLMError(f"the reply does not become {self.name}: {reason}; ask again with another seed") from error


def _read(path):
    path = expanded(path, OptionError)
    try:
        with opened(path) as file:
            schema = json.loads(file.read(LARGEST * 4))
    except FileNotFoundError:
        raise OptionError(
            f"there is no schema {str(path)!r}: name a variable, a class, list[Class], or a JSON file"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError(f"{path} is no JSON schema: {brief(error)}") from error
    if not isinstance(schema, dict):
        raise OptionError(f"{path} is no JSON schema: it holds {type(schema).__name__}, not an object")
    return schema


def _dumps(schema, name):
    try:
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError(f"{name} is no JSON schema: {brief(error)}") from error
    if len(text.encode(errors="surrogatepass")) > LARGEST:
        raise OptionError(TOO_LARGE.format(name))
    return text


def _measure(schema, name):
    """Refuses what would be too large when it is written, before anything goes through it: what stands in a schema
    twice is written twice, and what stands twice in that, four times."""
    size, parts = 0, [(schema, 0)]
    while parts:
        part, depth = parts.pop()
        if not isinstance(part, dict | list | tuple | str):
            continue
        size += len(part)  # at the least: a byte for each character, and for each value
        if depth > 4 * DEEPEST:
            raise OptionError(NESTED)
        if size > LARGEST:
            raise OptionError(TOO_LARGE.format(name))
        if not isinstance(part, str):
            parts += [(each, depth + 1) for each in (part.values() if isinstance(part, dict) else part)]


# ---- types


def _described(what):
    """The JSON schema of a type."""
    if not _pydantic(what):
        return _schema_of(what, (), {})
    try:
        return _adapter(what).json_schema()
    except Exception as error:  # Pydantic's own, and the user's of what Pydantic calls
        raise OptionError(f"{what} has no JSON schema: {brief(error)}") from error


def _pydantic(what):
    """Whether Pydantic describes it: a model of its own, or a list and the like of one."""
    return "pydantic" in sys.modules and any(
        hasattr(each, "__pydantic_core_schema__") or hasattr(each, "__pydantic_fields__") for each in _parts(what)
    )


def _parts(what):
    """The type and all that are in it, once each."""
    parts, known = [what], {id(what)}
    for each in parts:  # which grows meanwhile
        new = [part for part in typing.get_args(each) if id(part) not in known]
        known.update(map(id, new))
        parts += new
    return parts


def _adapter(what):
    from pydantic import TypeAdapter

    return TypeAdapter(what)


def _schema_of(what, around, known):
    """The JSON schema of a type that is described here.

    around : the dataclasses that it stands in; known : id -> (type, schema) of those that have been described, for one
    may stand in many places.
    """
    if id(what) not in known:
        known[id(what)] = what, _schema_of_new(what, around, known)
    return known[id(what)][1]


def _schema_of_new(what, around, known):
    origin, inner = typing.get_origin(what), typing.get_args(what)
    if origin is None and isinstance(what, (type, type(None))):
        if what in SIMPLE:
            return {"type": SIMPLE[what]}
        if what in DATES:
            return {"type": "string", "format": DATES[what]}
        if what is None:
            return {"type": "null"}
    if origin is typing.Literal:
        return {"enum": list(inner)}
    if origin is typing.Annotated:  # a dict beside the type is more of its schema: {"maxItems": 3}
        return _schema_of(inner[0], around, known) | {
            key: value for more in inner[1:] if isinstance(more, dict) for key, value in more.items()
        }
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema_of(each, around, known) for each in inner]}
    if what is list or origin is list:
        return {"type": "array"} | ({"items": _schema_of(inner[0], around, known)} if inner else {})
    if what is dict or origin is dict and inner[0] is str:
        return {"type": "object"} | ({"additionalProperties": _schema_of(inner[1], around, known)} if inner else {})
    if isinstance(what, type) and issubclass(what, enum.Enum):
        return {"enum": [each.value for each in what]}
    if isinstance(what, type) and dataclasses.is_dataclass(what):
        if what in around:
            raise OptionError(f"{what.__name__} holds itself, which cannot be told as a schema; use a Pydantic model")
        hints = _hints(what)
        fields = [field for field in dataclasses.fields(what) if field.init]
        needed = [field.name for field in fields
                  if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING]  # fmt: skip
        properties = {field.name: _schema_of(hints[field.name], (*around, what), known) for field in fields}
        return {"type": "object", "properties": properties, "required": needed, "additionalProperties": False}
    raise OptionError(f"{quoted(what, 100)} is no schema: give a JSON schema, a dataclass, a Pydantic model, a list of "
                      "one, or a file of JSON")  # fmt: skip


def _hints(what):
    try:
        return typing.get_type_hints(what)
    except Exception as error:  # evaluates what stands there as text
        raise OptionError(f"{what.__name__} has a field of an unknown type: {brief(error)}") from error


def _made(what, value):
    """An instance of the type from what `json.loads` made."""
    origin, inner = typing.get_origin(what), typing.get_args(what)
    if origin is typing.Annotated:
        return _made(inner[0], value)
    if origin in (typing.Union, types.UnionType):
        return next((made for each in inner for made in _fitting(each, value)), value)
    if origin is list:
        return [_made(inner[0], each) for each in value]
    if origin is dict:
        return {name: _made(inner[1], each) for name, each in value.items()}
    if isinstance(what, type) and issubclass(what, enum.Enum):
        return what(value)
    if what in DATES:
        return what.fromisoformat(value)
    if isinstance(what, type) and dataclasses.is_dataclass(what):
        hints = _hints(what)
        return what(**{name: _made(hints[name], each) for name, each in value.items()})
    return float(value) if what is float else value


def _fitting(what, value):
    """What this value is as that member of a union, as a list: of nothing, if it cannot be."""
    try:
        made = _made(what, value)
    except Exception:  # of whatever kind: the user's class says so that it is something else
        return []
    if typing.get_origin(what) is typing.Literal:
        return [made] if value in typing.get_args(what) else []
    kind = typing.get_origin(what) or what
    return [made] if not isinstance(kind, type) or isinstance(made, kind) else []


# ---- schemas


def _tidy(schema):
    """The schema without the titles that Pydantic writes, and closed: no properties but those that are named.

    Left open where what is named is told in several schemas together: each would then refuse the others' names.
    """
    together = any(_COMBINE & each.keys() and ("properties" in each or "allOf" in each) for each in _schemas(schema, 0))

    def tidied(part):
        if not isinstance(part, dict):
            return [tidied(each) for each in part] if isinstance(part, list) else part
        made = {}
        for key, value in part.items():
            if key == "title" and isinstance(value, str):
                continue
            if key in _NAMED and isinstance(value, dict):
                value = {name: tidied(each) for name, each in value.items()}
            elif key not in _DATA:
                value = tidied(value)
            made[key] = value
        if not together and "properties" in made and "patternProperties" not in made:
            made.setdefault("additionalProperties", False)
        return made

    return tidied(schema)


def _schemas(part, depth):
    """All schemas within one, itself first."""
    if depth > 2 * DEEPEST:
        raise OptionError(NESTED)
    if isinstance(part, list):
        for each in part:
            yield from _schemas(each, depth + 1)
    elif isinstance(part, dict):
        yield part
        for key, value in part.items():
            if key in _NAMED and isinstance(value, dict):
                for each in value.values():
                    yield from _schemas(each, depth + 1)
            elif key not in _DATA:
                yield from _schemas(value, depth + 1)
