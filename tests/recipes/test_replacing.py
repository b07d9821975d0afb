"""What a command may replace: only what it wrote itself, and nothing that somebody put there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pocketvl.errors import StageError
from pocketvl.recipes.data import PaintTabletop, make_tabletop
from pocketvl.recipes.export import is_bundle
from pocketvl.recipes.publishing import publish_if_changed
from tests.runtime.bundles import write_bundle


def test_a_bundle_may_be_replaced_and_a_bundle_with_more_in_it_not(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    assert is_bundle(bundle)
    for report in ("report.json", "report.html"):
        (bundle / report).write_text("x")
    assert is_bundle(bundle)
    (bundle / "notes.txt").write_text("mine")
    assert not is_bundle(bundle)


@pytest.mark.parametrize("content", ["{}", json.dumps({"manifest_version": 3, "name": "an extension"}), "?"])
def test_any_other_manifest_is_no_bundle(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    (tmp_path / "background.js").write_text("")
    assert not is_bundle(tmp_path)


def test_a_users_dataset_is_not_painted_over(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "samples.jsonl").write_text('{"image": "p.jpg"}\n')
    (mine / "p.jpg").write_bytes(b"a holiday")
    with pytest.raises(StageError, match="would lose"):
        make_tabletop(PaintTabletop(1, 2, 32), mine, tmp_path / "cache")
    assert (mine / "p.jpg").read_bytes() == b"a holiday"


def test_a_painted_folder_is_painted_anew(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_tabletop(PaintTabletop(seed, 2, 32), tmp_path / "world", tmp_path / "cache")
        assert json.loads((tmp_path / "world" / "tabletop.json").read_text())["seed"] == seed


def test_what_a_killed_publishing_left_is_removed_even_if_nothing_changed(tmp_path: Path) -> None:
    result = write_bundle(tmp_path / "result")
    publish_if_changed(result, tmp_path / "out", is_bundle)
    left = tmp_path / ".out.new-abc"
    left.mkdir()
    (tmp_path / ".out.new-abc.lock").touch()
    publish_if_changed(result, tmp_path / "out", is_bundle)
    assert not left.exists()
