"""Strict JSON <-> frozen dataclass: the field names are the keys, every deviation names its key path."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pocketvl_runtime.errors import BundleError, quoted, shortened

MAX_DEPTH = 64
"""How deep values may be nested where a schema leaves their form open."""

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
        return {item.name: encode(getattr(value, item.name)) for item in dataclasses.fields(value)}
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(item) for item in value]
    return value


def decode(kind: type[T], value: object, where: str) -> T:
    """Builds a `kind` (a dataclass of this package) from parsed JSON.

    Args:
        kind: the dataclass; its annotations are what is checked.
        value: what `parse_json` gave.
        where: what to call the whole in messages, e.g. "manifest.json".

    Raises:
        BundleError: a key is missing, unknown or of the wrong type, or a value is impossible; the message
            holds `where` and the key path.
    """
    result: T = _decode_dataclass(kind, value, f"{where}: ")
    return result


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key, item in pairs:
        if key in value:
            raise ValueError(f"key {quoted(key)} stands twice")
        value[key] = item
    return value


def _decode_dataclass(kind: Any, value: object, path: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong_type(path, "an object", value)
    hints = _hints(kind)
    fields = [item.name for item in dataclasses.fields(kind)]
    for name in fields:
        if name not in value:
            raise BundleError(f"{_join(path, name)} is missing")
    for name in value:
        if name not in fields:
            known = quoted(sorted(fields))
            raise BundleError(f"{_join(path, name)} is not a key of this schema; known are {known}")
    arguments = {name: _decode_any(hints[name], item, _join(path, name)) for name, item in value.items()}
    try:
        return kind(**arguments)
    except BundleError as error:
        raise BundleError(f"{_named(path)}: {error}") from error


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    """The types of a dataclass's fields; evaluating their text takes longer than reading the values."""
    return get_type_hints(kind)


def _decode_any(kind: Any, value: object, path: str) -> Any:
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _decode_optional(kind, value, path)
    if origin is tuple:
        return _decode_tuple(get_args(kind), value, path)
    if origin is not None and issubclass(origin, Mapping):
        return _decode_mapping(get_args(kind), value, path)
    if kind is object:
        return _checked_free(value, path)
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, path)
    if issubclass(kind, StrEnum):
        return _decode_enum(kind, value, path)
    return _decode_scalar(kind, value, path)


def _decode_optional(kind: Any, value: object, path: str) -> Any:
    if value is None:
        return None
    (inner,) = (item for item in get_args(kind) if item is not type(None))
    return _decode_any(inner, value, path)


def _decode_tuple(kinds: tuple[Any, ...], value: object, path: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _wrong_type(path, "a list", value)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise BundleError(f"{path} has {len(value)} items where {len(kinds)} are wanted")
    pairs = zip(kinds, value, strict=True)
    return tuple(_decode_any(kind, item, f"{path}[{index}]") for index, (kind, item) in enumerate(pairs))


def _decode_mapping(kinds: tuple[Any, ...], value: object, path: str) -> Mapping[Any, Any]:
    if not isinstance(value, dict):
        raise _wrong_type(path, "an object", value)
    key_kind, item_kind = kinds
    return {
        _decode_any(key_kind, key, _join(path, key)): _decode_any(item_kind, item, _join(path, key))
        for key, item in value.items()
    }


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
