"""Damage: to bytes, and to values that are written as JSON or TOML."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any

_EXTREMES = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1)


Extra = Mapping[str, Sequence[Any]]
"""Keys with values that somebody may write, and that mean something."""


class Raw(str):
    """Text that is written into JSON or TOML as it is."""

    __slots__ = ()


HOSTILE: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    2**31 - 1,
    2**31,
    2**53 + 1,
    2**63,
    2**64,
    10**400,
    -(10**400),
    -0.0,
    0.5,
    1e-320,
    1e308,
    -1e308,
    math.nan,
    math.inf,
    -math.inf,
    "",
    " ",
    "0",
    "\0",
    "\n",
    "\x1b[31m",
    "\u202e",
    "\ud800",
    "e\u0301",
    "x" * 100_000,
    "..",
    "../../etc/passwd",
    "/dev/zero",
    "{label}",
    "%s%n",
    [],
    {},
    [[]],
    [None],
    {"": None},
)

_RAW_JSON = (
    Raw("1e999"),
    Raw("-1e999"),
    Raw("9" * 5000),
    Raw("1.0"),
    Raw("[" * 100_000),
    Raw("[" * 500 + "]" * 500),
    Raw('{"a":' * 500 + "1" + "}" * 500),
    Raw("[" * 5000 + "]" * 5000),
    Raw('"\\ud800"'),
    Raw("01"),
    Raw("'a'"),
)


# --- bytes -------------------------------------------------------------------------------------------


def damage(rng: random.Random, data: bytes, times: int = 1) -> tuple[bytes, str]:
    """Changes bytes, and says how."""
    told = []
    for _ in range(times):
        data, what = rng.choice(_BYTE_DAMAGE)(rng, data)
        told.append(what)
    return data, ", ".join(told)


def _place(rng: random.Random, data: bytes) -> int:
    """Mostly anywhere, often in the header."""
    most = max(len(data) - 1, 0)
    return rng.randint(0, min(most, 64) if rng.random() < 0.4 else most)


def _flip(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 32)) if data else 0):
        changed[_place(rng, data)] ^= 1 << rng.randrange(8)
    return bytes(changed), "bits flipped"


def _overwrite(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    place = _place(rng, data)
    value, form = rng.choice(_EXTREMES), rng.choice((">I", "<I", ">H", "<H", "B"))
    size = struct.calcsize(form)
    packed = struct.pack(form, value % 256**size)
    return data[:place] + packed + data[place + size :], f"{form} {value} at {place}"


def _truncate(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    kept = rng.randint(0, len(data)) if rng.random() < 0.7 else max(0, len(data) - rng.randint(1, 16))
    return data[:kept], f"cut to {kept} bytes"


def _remove(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    place, length = _place(rng, data), rng.choice((1, 2, 4, 16, 200))
    return data[:place] + data[place + length :], f"{length} bytes removed at {place}"


def _repeat(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    begin, length, times = _place(rng, data), rng.choice((1, 4, 16, 64, 1000)), rng.choice((1, 1, 2, 50))
    chunk = data[begin : begin + length] * times
    place = _place(rng, data)
    return data[:place] + chunk + data[place:], f"{length} bytes of {begin} put in {times} times at {place}"


def _insert(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    place, length = _place(rng, data), rng.choice((1, 2, 4, 16, 200))
    return data[:place] + rng.randbytes(length) + data[place:], f"{length} random bytes at {place}"


_BYTE_DAMAGE = (_flip, _flip, _overwrite, _overwrite, _truncate, _remove, _repeat, _insert)


# --- values ------------------------------------------------------------------------------------------

Slot = tuple[Any, Any]  # a dict or list, and a key or index in it


def edit(rng: random.Random, value: Any, times: int = 1, extra: Extra | None = None) -> tuple[Any, str]:
    """Changes a tree of dicts and lists in some places, and says how.

    Args:
        rng: random numbers.
        value: the tree; left as it is.
        times: how many changes.
        extra: keys with values that somebody may write into such a tree, and that mean something.
    """
    value = deepcopy(value)
    told = []
    for _ in range(times):
        slots = list(_slots(value))
        if not slots:
            break
        if extra and rng.random() < 0.3:
            told.append(_put_extra(rng, value, slots, extra))
            continue
        slot, path = rng.choice(slots)
        told.append(f"{path} {rng.choice(_EDITS)(rng, slot, [s for s, _ in slots])}")
    return value, ", ".join(told)


def _slots(value: Any, path: str = "") -> Iterator[tuple[Slot, str]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (value, key), f"{path}.{key}"[:100]
        yield from _slots(item, f"{path}.{key}")


def _put_extra(rng: random.Random, value: Any, slots: list[tuple[Slot, str]], extra: Extra) -> str:
    name = rng.choice(sorted(extra))
    places = [container for (container, key), _ in slots if key == name] or [value]
    place = rng.choice(places)
    place[name] = deepcopy(rng.choice(extra[name]))
    return f"{name} = {place[name]!r:.60}"


def _replace(rng: random.Random, slot: Slot, _: list[Slot]) -> str:
    container, key = slot
    container[key] = deepcopy(rng.choice((*HOSTILE, *_RAW_JSON)))
    return f"= {container[key]!r:.40}"


def _nudge(rng: random.Random, slot: Slot, slots: list[Slot]) -> str:
    container, key = slot
    old = container[key]
    if isinstance(old, bool):
        container[key] = not old
    elif isinstance(old, int | float):
        as_float = float(old) if abs(old) < 2**1000 else 1e300
        container[key] = rng.choice((old + 1, old - 1, -old, old * 2, as_float, old * 1000, str(old)))
    elif isinstance(old, str):
        container[key] = rng.choice((old + " ", old.upper(), old[:-1], old * 2, old + "\0", [old]))
    else:
        return _replace(rng, slot, slots)
    return f"= {container[key]!r:.40} for {old!r:.40}"


def _drop(rng: random.Random, slot: Slot, _: list[Slot]) -> str:
    container, key = slot
    del container[key]
    return "removed"


def _copy(rng: random.Random, slot: Slot, slots: list[Slot]) -> str:
    container, key = slot
    other, place = rng.choice(slots)
    container[key] = deepcopy(other[place])
    return f"= what stands at {place}"


def _add(rng: random.Random, slot: Slot, _: list[Slot]) -> str:
    container, key = slot
    if isinstance(container, list):
        container.insert(key, deepcopy(container[key]))
        return "stands twice"
    name = rng.choice((f"{key} ", str(key).upper(), "", "\0", "x" * 1000, "__class__", "\ud800", "e\u0301"))
    container[name] = deepcopy(container[key])
    return f"also as {name!r:.20}"


def _twice(rng: random.Random, slot: Slot, slots: list[Slot]) -> str:
    container, key = slot
    if isinstance(container, list):
        return _add(rng, slot, slots)
    container[key] = Raw(f"{json_text(container[key])}, {json.dumps(key)}: {json_text(rng.choice(HOSTILE))}")
    return "is a key that stands twice"


def _wrap(rng: random.Random, slot: Slot, _: list[Slot]) -> str:
    container, key = slot
    container[key] = rng.choice(([container[key]], {"": container[key]}, [container[key]] * 1000))
    return "wrapped"


Edit = Callable[[random.Random, Slot, list[Slot]], str]
_EDITS: tuple[Edit, ...] = (_replace, _replace, _replace, _nudge, _nudge, _drop, _copy, _add, _twice, _wrap)


# --- text --------------------------------------------------------------------------------------------


def json_text(value: Any) -> str:
    """JSON, with `Raw` text as it is."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(k))}: {json_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(json_text(item) for item in value) + "]"
    return json.dumps(value)


def hostile_json(rng: random.Random, value: Any, extra: Extra | None = None) -> tuple[bytes, str]:
    """JSON that differs from a value in structure, or is damaged as text."""
    if rng.random() < 0.8:
        changed, what = edit(rng, value, rng.choice((1, 1, 1, 2, 3)), extra)
        return json_text(changed).encode(), what
    text = json_text(value)
    return rng.choice(
        (
            lambda: (b"\xef\xbb\xbf" + text.encode(), "with a BOM"),
            lambda: (text.encode("utf-16"), "in UTF-16"),
            lambda: (b"", "empty"),
            lambda: (b"null", "null"),
            lambda: (b"[" * 200_000, "200,000 open brackets"),
            lambda: (text.encode() + b"{}", "with an object behind"),
            lambda: (text.replace("}", ",}", 1).encode(), "with a comma too many"),
            lambda: (text.replace("{", "{ /* */", 1).encode(), "with a comment"),
            lambda: damage(rng, text.encode(), rng.choice((1, 1, 3))),
            lambda: damage(rng, text.encode()),
        )
    )()


def toml_text(value: Mapping[str, Any]) -> str:
    """TOML with inline tables; None is written as an empty string, which TOML lacks nothing for."""
    return "".join(f"{json.dumps(str(key))} = {_toml(item)}\n" for key, item in value.items())


def _toml(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return "nan" if math.isnan(value) else repr(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(k))} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return json.dumps("" if value is None else value)
