"""JSON Schema (draft 2020-12) of frozen dataclasses, as `schema.encode` writes them.

A field's `metadata` may say more: `{"optional": True}`, the key may be missing; `{"key": ...}`, the key is
another word than the field's name; `{"schema": {...}}`, keywords to add, which `check_keywords` enforces.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import types
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pocketvl_runtime.errors import BundleError, quoted

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_SCALARS = {str: "string", bool: "boolean", int: "integer", float: "number"}
_ATTRIBUTE = re.compile(r"^    (\w+(?:, \w+)*): (.+?)(?=^    \w|^\S|\Z)", re.MULTILINE | re.DOTALL)

Schema = dict[str, Any]


def check_keywords(record: Any) -> None:
    """Checks a dataclass's values against the keywords in its fields' metadata; for `__post_init__`.

    Raises:
        BundleError: one does not meet them; the message begins with its key.
    """
    for item in dataclasses.fields(record):
        value = getattr(record, item.name)
        for keyword, limit in item.metadata.get("schema", {}).items():
            broken = None if value is None else _broken(value, keyword, limit)
            if broken:
                raise BundleError(f"{item.metadata.get('key', item.name)} {broken}")


def json_schema(kind: type[Any], title: str) -> Schema:
    """The JSON Schema of a dataclass and of all that it is made of, descriptions included.

    Objects are closed (`additionalProperties: false`): it describes what a writer of this version writes. A
    reader that is to pass over the keys of a newer version validates without that keyword.

    Raises:
        TypeError: a field has a type that has no schema, or two dataclasses or enums share a name.
    """
    schemas = _Schemas({}, {})
    root = schemas.of(kind)
    return {"$schema": _DRAFT, "title": title, **root, "$defs": dict(sorted(schemas.found.items()))}


def schema_text(kind: type[Any], title: str) -> str:
    """`json_schema` as the text of a file."""
    return json.dumps(json_schema(kind, title), indent=1, ensure_ascii=False) + "\n"


@dataclasses.dataclass(frozen=True)
class _Schemas:
    """What `$defs` holds so far, by name, and which class each is of."""

    found: dict[str, Schema]
    classes: dict[str, Any]

    def of(self, kind: Any) -> Schema:
        origin, arguments = get_origin(kind), get_args(kind)
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.of(each) for each in arguments]}
        if origin is Literal:
            return {"const": arguments[0]} if len(arguments) == 1 else {"enum": list(arguments)}
        if origin is tuple:
            return self.sequence(arguments)
        if origin is not None and issubclass(origin, Mapping):
            return self.mapping(*arguments)
        if kind is object:
            return {}
        if kind is type(None):
            return {"type": "null"}
        if kind in _SCALARS:
            return {"type": _SCALARS[kind]}
        if dataclasses.is_dataclass(kind) or (inspect.isclass(kind) and issubclass(kind, StrEnum)):
            return self.reference(kind)
        raise TypeError(f"{kind} has no JSON Schema")

    def sequence(self, kinds: tuple[Any, ...]) -> Schema:
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            return {"type": "array", "items": self.of(kinds[0])}
        items = [self.of(kind) for kind in kinds]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}

    def mapping(self, key: Any, item: Any) -> Schema:
        names = {} if key is str else {"propertyNames": self.of(key)}
        return {"type": "object", **names, "additionalProperties": self.of(item)}

    def reference(self, kind: Any) -> Schema:
        name = kind.__name__
        if self.classes.setdefault(name, kind) is not kind:
            raise TypeError(f"{kind} and {self.classes[name]} share a name in one JSON Schema")
        if name not in self.found:
            self.found[name] = {}  # stands before its fields are looked at, for it may refer to itself
            self.found[name] = self.record(kind) if dataclasses.is_dataclass(kind) else _enumeration(kind)
        return {"$ref": f"#/$defs/{name}"}

    def record(self, kind: Any) -> Schema:
        hints, said = get_type_hints(kind), _attributes(kind)
        properties, required = {}, []
        for item in dataclasses.fields(kind):
            key = item.metadata.get("key", item.name)
            told = {"description": said[item.name]} if item.name in said else {}
            properties[key] = {**told, **self.of(hints[item.name]), **item.metadata.get("schema", {})}
            if not item.metadata.get("optional", False):
                required.append(key)
        return {
            **_summary(kind),
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        }


def _broken(value: Any, keyword: str, limit: Any) -> str | None:
    """How a value does not meet a keyword, in words; None: it does."""
    match keyword:
        case "minimum":
            return None if value >= limit else f"must be at least {limit}, not {value}"
        case "minLength" | "minItems":
            return None if len(value) >= limit else f"must hold at least {limit}, not {len(value)}"
        case "required":
            return next((f"has no {quoted(key)}" for key in limit if key not in value), None)
        case "pattern":
            return None if re.fullmatch(limit, value) else f"is {quoted(value)}, and must match {limit}"
    raise TypeError(f"{keyword} is no keyword that is checked")


def _enumeration(kind: type[StrEnum]) -> Schema:
    return {**_summary(kind), "type": "string", "enum": [item.value for item in kind]}


def _summary(kind: type[Any]) -> Schema:
    """The first paragraph of a docstring; a dataclass without one has its signature there."""
    text = inspect.cleandoc(kind.__doc__ or "")
    first = " ".join(text.partition("\n\n")[0].split())
    return {} if not first or first.startswith(f"{kind.__name__}(") else {"description": first}


def _attributes(kind: type[Any]) -> dict[str, str]:
    """What a docstring's `Attributes:` says of each field."""
    _, _, section = inspect.cleandoc(kind.__doc__ or "").partition("\nAttributes:\n")
    found = {}
    for match in _ATTRIBUTE.finditer(section):
        for name in match[1].split(", "):
            found[name] = " ".join(match[2].split())
    return found
