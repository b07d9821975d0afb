"""`pocketvl report` writes the page anew, with the profiles that lie in the bundle."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pocketvl import api
from pocketvl.cli import cli
from pocketvl.errors import RecipeError
from pocketvl_runtime.errors import BundleError
from tests.devices.profiles import emulated, profile
from tests.evaluate.test_html import Page
from tests.pipelines.reported import profile_of, write_profile, write_reported


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_reported(tmp_path / "tiny")


def test_the_page_shows_the_profiles_of_this_bundle(bundle: Path) -> None:
    folder = bundle / "profiles"
    write_profile(bundle, folder / "pi5.json")
    write_profile(bundle, folder / "qemu.json", emulated(profile_of(bundle)))
    write_profile(bundle, folder / "old.json", profile({"onnx-int8": {1: 9.0}}))
    done = CliRunner().invoke(cli, ["report", str(bundle)], catch_exceptions=False)
    assert done.stdout.splitlines() == [
        "profile: pi5",
        "profile: qemu",
        "left out: profiles/old.json is of another bundle, or of this one before it was changed",
        f"report: {bundle / 'report.html'}",
    ]
    page = Page((bundle / "report.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert "pi5: Example Board 1" in page.text
    assert "Ran under emulation" in page.text
    assert "old: " not in page.text
    assert "same first answer in all 3 variants" in page.text  # the golden pack was answered


def test_the_page_is_the_same_every_time_and_keeps_the_training_curves(bundle: Path) -> None:
    write_profile(bundle, bundle / "profiles" / "pi5.json")
    api.report(bundle)
    page = bundle / "report.html"
    first = page.read_bytes()
    assert b'class="curves"' not in first
    api.report(bundle)
    assert page.read_bytes() == first
    curves = base64.b64encode(b"\x89PNG curves").decode()
    page.write_text(f'<img class="curves" src="data:image/png;base64,{curves}" alt="">', encoding="utf-8")
    api.report(bundle)
    assert curves in page.read_text(encoding="utf-8")
    assert {path.name for path in bundle.iterdir() if path.name.startswith("report")} == {
        "report.html",
        "report.json",
    }


def test_without_profiles_nothing_is_said_of_devices(bundle: Path) -> None:
    told = CliRunner().invoke(cli, ["report", str(bundle), "--json"], catch_exceptions=False).stdout
    assert json.loads(told) == {"page": str(bundle / "report.html"), "profiles": [], "left_out": []}
    assert "On devices" not in (bundle / "report.html").read_text(encoding="utf-8")


def test_what_cannot_be_shown_is_one_line_and_the_page_stays(bundle: Path) -> None:
    (bundle / "report.html").write_text("as it was")
    (bundle / "profiles").mkdir()
    (bundle / "profiles" / "bad.json").write_text("{")
    with pytest.raises(BundleError, match=r"bad\.json is not JSON"):
        api.report(bundle)
    (bundle / "profiles" / "bad.json").unlink()
    (bundle / "profiles" / "bad.json").mkdir()
    with pytest.raises(RecipeError, match=r"bad\.json cannot be read"):
        api.report(bundle)
    assert (bundle / "report.html").read_text() == "as it was"
