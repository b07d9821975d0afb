"""Seeded damage to a JSON file: bits, and values that somebody may put in on purpose."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from typing import Any

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63), 10**400, 0.5, -0.0, 1e-308, 1e308),
    *("", "a", " ", "\0", "..", "/", "/etc/passwd", "golden/golden.json", "tokenizer.json", "\ud800", "1e5"),
    *("onnx", "fp32", "\U0001f98a", "{label}", "x" * 5_000, "{label}" * 3_000),
    *([], [[]], {}, {"": {}}, [None] * 50, [1] * 2_000, {"a": 1}),
)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The bytes of a JSON file with one to three changes of one kind."""
    kind = rng.choice(("bits", "cut", "values", "values", "values", "values"))
    if kind == "cut":
        start = rng.randrange(len(content))
        return content[:start] + content[start + rng.randrange(1, 200) :]
    if kind == "bits":
        damaged = bytearray(content)
        for _ in range(rng.randint(1, 3)):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        return bytes(damaged)
    value = json.loads(content)
    for _ in range(rng.randint(1, 3)):
        _change(value, rng)
    return json.dumps(value).encode()


def _change(value: Any, rng: random.Random) -> None:
    """Changes one place of parsed JSON: another value there, taken out, there twice, or nested in lists."""
    at = value
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return
        key = rng.choice(keys)
        if not isinstance(at[key], dict | list) or not at[key] or rng.random() < 0.15:
            break
        at = at[key]
    match rng.randrange(8):
        case 0:
            del at[key]
        case 1 if isinstance(at, list):
            at += [deepcopy(at[key]) for _ in range(rng.choice((1, 100)))]
        case 2 if isinstance(at, dict):
            at[rng.choice(("", "x" * 500, "\ud800", "type"))] = deepcopy(at[key])
        case 3:
            nested = at[key]
            for _ in range(rng.choice((1, 70, 400))):
                nested = [nested]
            at[key] = nested
        case _:
            at[key] = deepcopy(rng.choice(ODD))
