"""The manifests of tests/bundles/hostile, which readers in every language hold themselves against."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path
from typing import Any

import pytest

from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.manifest import Manifest
from tests.runtime.bundles import with_digest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "bundles" / "hostile"
LONGEST_LINE = 600


def cases() -> list[Any]:
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        stored = json.loads(path.read_text(encoding="utf-8"))
        found += [
            pytest.param({"base": stored["base"], **case}, id=f"{path.stem}: {case['name']}")
            for case in stored["cases"]
        ]
    return found


def expanded(value: Any) -> Any:
    """A value of a case with what it abbreviates written out."""
    if isinstance(value, list):
        return [expanded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$repeat" in value:
        return expanded(value["$repeat"]) * value["times"]
    if "$nest" in value:
        return functools.reduce(lambda inner, _: [inner], range(value["times"]), expanded(value["$nest"]))
    return {key: expanded(item) for key, item in value.items()}


def keys_of(pointer: str) -> list[str]:
    return [key.replace("~1", "/").replace("~0", "~") for key in pointer.split("/")[1:]]


def at(value: Any, keys: list[str]) -> Any:
    for key in keys:
        value = value[int(key)] if isinstance(value, list) else value[key]
    return value


def patch(value: Any, edit: dict[str, Any]) -> None:
    """Does one operation of a JSON Patch (RFC 6902): add, remove, replace or copy."""
    *folder, last = keys_of(edit["path"])
    parent = at(value, folder)
    key: Any = last
    if isinstance(parent, list):
        key = len(parent) if last == "-" else int(last)
    if edit["op"] == "remove":
        del parent[key]
        return
    new = copy.deepcopy(at(value, keys_of(edit["from"]))) if "from" in edit else expanded(edit["value"])
    if edit["op"] == "replace":
        assert at(value, [*folder, last]) != new, "it changes nothing"
    if isinstance(parent, list) and edit["op"] != "replace":
        parent.insert(key, new)
    else:
        parent[key] = new


def content_of(case: dict[str, Any]) -> bytes:
    """The manifest.json of a case."""
    if "hex" in case:
        return bytes.fromhex(case["hex"])
    if "text" in case:
        return str(expanded(case["text"])).encode()
    text: str = (ROOT / case["base"]).read_text(encoding="utf-8")
    if "text_edits" in case:
        for edit in case["text_edits"]:
            assert edit["find"] in text
            text = text.replace(edit["find"], edit["replace"], 1)
        return text.encode()
    value = json.loads(text)
    for edit in case["edits"]:
        patch(value, edit)
    text = with_digest(value) if case.get("sealed", True) else json.dumps(value)
    return text.encode()


@pytest.mark.parametrize("case", cases())
def test_a_manifest_is_read_or_refused_as_the_case_says(case: dict[str, Any]) -> None:
    content = content_of(case)
    if case.get("opens"):
        Manifest.from_json(content)
        return
    with pytest.raises(BundleError) as caught:
        Manifest.from_json(content)
    said = str(caught.value)
    assert case["refused"] in said
    assert said.startswith("manifest.json")
    assert "\n" not in said
    assert len(said) < LONGEST_LINE


def test_the_cases_are_many_and_have_names() -> None:
    names = [case.values[0]["name"] for case in cases()]
    assert len(names) >= 250
    assert len(set(names)) == len(names)
