"""Strict JSON <-> frozen dataclass: the field names are the keys, every deviation names its key path.

A field's `metadata` may say more: `OPTIONAL`, the key may be missing and is left out where the value is the
default; `{"key": ...}`, the key is another word than the field's name. Dataclasses of a union are told apart
by their first `Literal` field, e.g. `kind`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from pocketvl_runtime.errors import BundleError, quoted, shortened

MAX_DEPTH = 64
"""How deep values may be nested where a schema leaves their form open."""

OPTIONAL = {"optional": True}
"""Metadata of a field whose key may be missing."""

T = TypeVar("T")


def parse_json(text: str | bytes, where: str) -> Any:
    """Parses JSON text; NaN and Infinity, which JSON does not have, and keys that stand twice are refused.

    Raises:
        BundleError: the text is not UTF-8 or not JSON; the message names `where` and the place in it.
    """
    try:
        decoded = text.decode("utf-8") if isinstance(text, bytes) else text
        return json.loads(decoded, parse_constant=_refuse_constant, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        place = f"{error.msg}, line {error.lineno} column {error.colno}"
        raise BundleError(f"{where} is not JSON ({place}); it is damaged, copy the bundle again") from error
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not JSON ({error}); it is damaged, copy the bundle again") from error


def dump_json(value: object) -> str:
    """Writes a value the one way that manifests are written: sorted keys, indent 1, trailing newline."""
    return json.dumps(encode(value), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def encode(value: object) -> Any:
    """Turns dataclasses, enums, tuples and mappings into what `json` writes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((item, getattr(value, item.name)) for item in dataclasses.fields(value))
        return {key_of(item): encode(each) for item, each in pairs if not _is_left_out(item, each)}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def decode(kind: type[T], value: object, where: str, *, ignore_unknown: bool = False) -> T:
    """Builds a `kind` (a dataclass of this package) from parsed JSON.

    Args:
        kind: the dataclass; its annotations are what is checked.
        value: what `parse_json` gave.
        where: what to call the whole in messages, e.g. "manifest.json".
        ignore_unknown: pass over keys that `kind` does not have, as for a newer minor version.

    Raises:
        BundleError: a key is missing, unknown or of the wrong type, or a value is impossible; the message
            holds `where` and the key path.
    """
    result: T = _Decoder(ignore_unknown).record(kind, value, f"{where}: ")
    return result


def key_of(item: dataclasses.Field[Any]) -> str:
    """The JSON key of a dataclass's field."""
    key: str = item.metadata.get("key", item.name)
    return key


def is_optional(item: dataclasses.Field[Any]) -> bool:
    """Whether the key of a dataclass's field may be missing."""
    return bool(item.metadata.get("optional", False))


@functools.cache
def hints_of(kind: Any) -> dict[str, Any]:
    """The types of a dataclass's fields; evaluating their text takes longer than reading the values."""
    return get_type_hints(kind)


@functools.cache
def tag_of(kind: Any) -> tuple[str, str]:
    """Key and value by which a dataclass is told apart in a union: its first `Literal` field's."""
    literals = ((name, hint) for name, hint in hints_of(kind).items() if get_origin(hint) is Literal)
    name, hint = next(literals)
    return name, get_args(hint)[0]


def _is_left_out(item: dataclasses.Field[Any], value: object) -> bool:
    if not is_optional(item):
        return False
    make = item.default_factory
    return bool(value == (item.default if make is dataclasses.MISSING else make()))


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise ValueError(f"key {quoted(key)} stands twice")
        value[key] = item
    return value


@dataclass(frozen=True)
class _Decoder:
    ignore_unknown: bool

    def record(self, kind: Any, value: object, path: str) -> Any:
        if not isinstance(value, dict):
            raise _wrong_type(path, "an object", value)
        hints = hints_of(kind)
        fields = {key_of(item): item for item in dataclasses.fields(kind)}
        for key, item in fields.items():
            if key not in value and not is_optional(item):
                raise BundleError(f"{_join(path, key)} is missing")
        if not self.ignore_unknown:
            for key in value:
                if key not in fields:
                    known = quoted(sorted(fields))
                    raise BundleError(f"{_join(path, key)} is not a key of this schema; known are {known}")
        arguments = {
            item.name: self.value(hints[item.name], value[key], _join(path, key))
            for key, item in fields.items()
            if key in value
        }
        try:
            return kind(**arguments)
        except BundleError as error:
            raise BundleError(f"{_named(path)}: {error}") from error

    def value(self, kind: Any, value: object, path: str) -> Any:
        origin = get_origin(kind)
        if origin in (Union, types.UnionType):
            return self.union(get_args(kind), value, path)
        if origin is Literal:
            return _decode_literal(get_args(kind)[0], value, path)
        if origin is tuple:
            return self.sequence(get_args(kind), value, path)
        if origin is not None and issubclass(origin, Mapping):
            return self.mapping(get_args(kind), value, path)
        if kind is object:
            return _checked_free(value, path)
        if dataclasses.is_dataclass(kind):
            return self.record(kind, value, path)
        if issubclass(kind, StrEnum):
            return _decode_enum(kind, value, path)
        return _decode_scalar(kind, value, path)

    def union(self, kinds: tuple[Any, ...], value: object, path: str) -> Any:
        if value is None and type(None) in kinds:
            return None
        inner = [kind for kind in kinds if kind is not type(None)]
        if len(inner) == 1:
            return self.value(inner[0], value, path)
        if dataclasses.is_dataclass(inner[0]):
            return self.tagged(inner, value, path)
        if type(value) not in inner:  # numbers or names, as the sizes of a shape are
            raise _wrong_type(path, "an integer or a string", value)
        return value

    def tagged(self, kinds: list[Any], value: object, path: str) -> Any:
        by_tag = {tag_of(kind)[1]: kind for kind in kinds}
        key = tag_of(kinds[0])[0]
        if not isinstance(value, dict):
            raise _wrong_type(path, "an object", value)
        if key not in value:
            raise BundleError(f"{_join(path, key)} is missing")
        tag = value[key]
        if not isinstance(tag, str) or tag not in by_tag:
            raise BundleError(f"{_join(path, key)} is {quoted(tag)}; known are {list(by_tag)}")
        return self.record(by_tag[tag], value, path)

    def sequence(self, kinds: tuple[Any, ...], value: object, path: str) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise _wrong_type(path, "a list", value)
        if len(kinds) == 2 and kinds[1] is Ellipsis:
            kinds = (kinds[0],) * len(value)
        if len(kinds) != len(value):
            raise BundleError(f"{path} has {len(value)} items where {len(kinds)} are wanted")
        pairs = zip(kinds, value, strict=True)
        return tuple(self.value(kind, item, f"{path}[{index}]") for index, (kind, item) in enumerate(pairs))

    def mapping(self, kinds: tuple[Any, ...], value: object, path: str) -> Mapping[Any, Any]:
        if not isinstance(value, dict):
            raise _wrong_type(path, "an object", value)
        key_kind, item_kind = kinds
        return {
            self.value(key_kind, key, _join(path, key)): self.value(item_kind, item, _join(path, key))
            for key, item in value.items()
        }


def _decode_literal(wanted: str, value: object, path: str) -> str:
    if value != wanted:
        raise BundleError(f"{path} is {quoted(value)}; {wanted!r} is wanted")
    return wanted


def _decode_enum(kind: type[StrEnum], value: object, path: str) -> StrEnum:
    try:
        return kind(value)  # type: ignore[arg-type]
    except ValueError:
        known = [item.value for item in kind]
        raise BundleError(f"{path} is {quoted(value)}; known are {known}") from None


def _decode_scalar(kind: Any, value: object, path: str) -> object:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value) if abs(value) < 2**1000 else math.inf
    if type(value) is not kind:
        raise _wrong_type(
            path, {str: "a string", bool: "true or false", int: "an integer"}.get(kind, "a number"), value
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise BundleError(f"{path} is not a finite number")
    return value


def _checked_free(value: object, path: str) -> object:
    """A value of any form, which can be written again: finite numbers, not nested too deep."""
    layer = [value]
    for _ in range(MAX_DEPTH):
        if any(isinstance(item, float) and not math.isfinite(item) for item in layer):
            raise BundleError(f"{path} holds a number that is not finite")
        groups = [list(item.values()) if isinstance(item, dict) else item for item in layer]
        layer = [item for group in groups if isinstance(group, list) for item in group]
        if not layer:
            return value
    raise BundleError(f"{path} is nested more than {MAX_DEPTH} deep")


def _wrong_type(path: str, wanted: str, value: object) -> BundleError:
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    return BundleError(f"{_named(path)} must be {wanted}, not {names.get(type(value), 'a number')}")


def _named(path: str) -> str:
    return path.removesuffix(": ")


def _join(path: str, key: str) -> str:
    key = shortened(key, 60)
    return f"{path}{key}" if path.endswith(": ") else f"{path}.{key}"
