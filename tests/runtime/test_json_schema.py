"""JSON Schema of dataclasses: it takes what `schema.encode` writes, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import jsonschema
import pytest

from pocketvl_runtime.json_schema import json_schema, schema_text
from pocketvl_runtime.schema import encode


class Color(StrEnum):
    """A color."""

    RED = "red"
    GREEN = "green"


@dataclass(frozen=True)
class Circle:
    """A circle.

    Attributes:
        radius: in metres; where it is not known,
            zero.
        x, y: of its centre.
    """

    radius: float
    x: int
    y: int
    kind: Literal["circle"] = "circle"


@dataclass(frozen=True)
class Group:
    """Shapes, groups among them."""

    members: tuple[Circle | Group, ...]
    kind: Literal["group"] = "group"


@dataclass(frozen=True)
class Drawing:
    """A drawing."""

    group: Group
    size: tuple[int, int]
    axes: tuple[int | str, ...]
    weights: Mapping[Color, float]
    back: Color | None
    free: Mapping[str, object]
    is_final: bool
    count: int = field(metadata={"schema": {"minimum": 1}})
    source: str = field(default="", metadata={"optional": True, "key": "from"})


DRAWING = Drawing(
    Group((Circle(1.5, 0, 0), Group(()))),
    (3, 4),
    (1, "T"),
    {Color.RED: 1.0},
    None,
    {"a": [None]},
    True,
    1,
    "x",
)


def valid(value: object) -> bool:
    schema = json_schema(Drawing, "drawings")
    jsonschema.Draft202012Validator.check_schema(schema)
    return bool(jsonschema.Draft202012Validator(schema).is_valid(value))


def written(**edits: Any) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(json.dumps(encode(DRAWING)))
    value["from"] = value.pop("source", "x")
    return value | edits


def test_what_is_written_is_valid() -> None:
    assert valid(written())
    whole = written()
    del whole["from"]  # may be missing
    assert valid(whole)
    assert valid(written(back="green", size=[5, 6], weights={}))


@pytest.mark.parametrize(
    "edits",
    [
        {"back": "blue"},
        {"size": [1]},
        {"size": [1, 2, 3]},
        {"size": [1, "2"]},
        {"axes": [1.5]},
        {"weights": {"blue": 1.0}},
        {"weights": {"red": "1"}},
        {"group": None},
        {"group": {"members": [], "kind": "circle"}},
        {"group": {"members": [{"radius": 1}], "kind": "group"}},
        {"is_final": 1},
        {"count": 0},
        {"count": True},
        {"from": 3},
        {"more": 1},
    ],
)
def test_what_is_not_written_is_not_valid(edits: dict[str, Any]) -> None:
    assert not valid(written(**edits))


def test_keys_that_must_stand_are_missed() -> None:
    for key in written():
        assert valid({k: v for k, v in written().items() if k != key}) == (key == "from"), key


def test_docstrings_become_descriptions() -> None:
    definitions = json_schema(Drawing, "drawings")["$defs"]
    assert definitions["Circle"]["description"] == "A circle."
    assert definitions["Color"]["description"] == "A color."
    said = {key: value.get("description") for key, value in definitions["Circle"]["properties"].items()}
    assert said == {
        "radius": "in metres; where it is not known, zero.",
        "x": "of its centre.",
        "y": "of its centre.",
        "kind": None,
    }


def test_a_type_without_a_schema_is_refused() -> None:
    @dataclass(frozen=True)
    class Odd:
        data: bytes

    with pytest.raises(TypeError, match="bytes"):
        json_schema(Odd, "odd")


def test_two_classes_of_one_name_are_refused() -> None:
    @dataclass(frozen=True)
    class Both:
        one: Circle
        two: object

    other = type("Circle", (), {"__annotations__": {"a": int}, "__doc__": "Another."})
    Both.__annotations__["two"] = dataclass(frozen=True)(other)
    with pytest.raises(TypeError, match="share a name"):
        json_schema(Both, "both")


def test_the_text_ends_in_a_newline() -> None:
    text = schema_text(Drawing, "drawings")
    assert text.endswith("}\n")
    assert json.loads(text) == json_schema(Drawing, "drawings")
