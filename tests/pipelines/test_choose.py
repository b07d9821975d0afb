"""`pocketvl choose`, and the bundle that it writes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pocketvl import api
from pocketvl.cli import cli
from pocketvl.errors import RecipeError, StageError
from pocketvl.pipelines.choose import write_single_variant
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BundleError, PocketVLError
from pocketvl_runtime.manifest import FORMAT_VERSION
from pocketvl_runtime.selftest import selftest
from tests.devices.profiles import emulated, profile
from tests.pipelines.reported import profile_of, write_profile, write_reported

BUNDLES = Path(__file__).parents[1] / "bundles"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_reported(tmp_path_factory.mktemp("choose") / "tiny")


@pytest.fixture
def bundle(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "tiny"))


@pytest.fixture
def device(bundle: Path, tmp_path: Path) -> Path:
    return write_profile(bundle, tmp_path / "pi5.json")


def choose(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["choose", *map(str, arguments)], catch_exceptions=False)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_choice_is_printed_with_what_was_passed_over(bundle: Path, device: Path) -> None:
    lines = choose(bundle, "--device", device).stdout.splitlines()
    assert lines[0].startswith("onnx-fp32 at 2 threads: 20.00 ms, ")
    assert lines[0].endswith(", loses nothing")
    rows = [line.split() for line in lines[1:]]
    assert [(row[0], row[1], row[-1]) for row in rows] == [
        ("onnx-fp32", "2", "chosen"),
        ("tflite-fp32", "1", "slower"),
        ("onnx-fp32", "1", "slower"),
        ("onnx-int8", "2", "more"),
        ("onnx-int8", "1", "more"),
    ]


def test_limits_lead_to_another_choice(bundle: Path, device: Path) -> None:
    told = json.loads(
        choose(bundle, "--device", device, "--max-latency", 10, "--threads", 1, "--json").stdout
    )
    assert (told["chosen"]["variant"], told["chosen"]["threads"]) == ("onnx-int8", 1)
    assert told["closest"] is None
    assert {each["reason"] for each in told["candidates"]} == {
        "", "not at 1 threads", "takes 30.00 ms", "takes 25.00 ms",
    }  # fmt: skip
    size = Bundle.open(bundle).size_bytes("onnx-int8")
    found = api.choose(
        bundle, device, max_size=f"{size}B", max_loss_pp=1.0, metric="match_hard"
    ).choice.chosen
    assert found is not None
    assert found.size_bytes <= size


def test_variants_that_the_profile_lacks_are_named(bundle: Path, tmp_path: Path) -> None:
    short = write_profile(bundle, tmp_path / "short.json", profile_of(bundle, {"onnx-int8": {1: 9.0}}))
    assert "tflite-fp32   was not measured on the device" in choose(bundle, "--device", short).stdout


def test_where_nothing_fits_the_closest_is_named_and_nothing_is_written(
    bundle: Path, device: Path, tmp_path: Path
) -> None:
    out = tmp_path / "slim"
    with pytest.raises(RecipeError) as caught:
        choose(bundle, "--device", device, "--max-latency", 5, "-o", out)
    assert str(caught.value) == (
        f"no accepted variant of {bundle} that {device} measured keeps to the limits; "
        "closest comes onnx-int8 at 2 threads, which takes 6.00 ms"
    )
    assert not out.exists()


def test_the_slim_bundle_holds_one_variant_and_passes_its_self_test(
    bundle: Path, device: Path, tmp_path: Path
) -> None:
    write_profile(bundle, bundle / "profiles" / "pi5.json")
    out = tmp_path / "slim"
    assert choose(bundle, "--device", device, "--max-latency", 10, "-o", out).stdout.endswith(
        f"bundle: {out}\n"
    )
    slim, whole = Bundle.open(out), Bundle.open(bundle)
    assert list(slim.manifest.variants) == ["onnx-int8"]
    assert slim.manifest.variants["onnx-int8"] == whole.manifest.variants["onnx-int8"]
    assert slim.verify() == len(tree(out)) - 1
    graphs = {graph.file for graph in slim.graphs("onnx-int8")}
    assert {name for name in tree(out) if name.startswith("graphs/")} == graphs
    assert set(tree(out)) < set(tree(bundle))
    assert not {"report.json", "report.html", "profiles/pi5.json"} & set(tree(out))
    assert list(slim.golden().tolerance) == ["onnx-int8"]
    assert slim.golden().outputs == whole.golden().outputs
    command = [sys.executable, "-m", "pocketvl_runtime", "selftest", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "onnx-int8: all good" in done.stdout


def test_the_slim_bundle_is_the_same_every_time_and_replaces_only_what_is_ours(
    bundle: Path, device: Path, tmp_path: Path
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for out in (one, other, other):
        api.choose(bundle, device, max_latency_ms=10, out=out)
    assert tree(one) == tree(other)
    api.choose(bundle, device, out=other)
    assert list(Bundle.open(other).manifest.variants) == ["onnx-fp32"]
    (one / "mine.txt").write_text("mine")
    with pytest.raises(StageError, match=r"mine\.txt"):
        api.choose(bundle, device, out=one)
    assert list(Bundle.open(one).manifest.variants) == ["onnx-int8"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_damaged_graph_is_never_copied(bundle: Path, device: Path, tmp_path: Path) -> None:
    graph = bundle / Bundle.open(bundle).graphs("onnx-int8")[0].file
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    with pytest.raises(BundleError, match="is damaged"):
        api.choose(bundle, device, max_latency_ms=10, out=tmp_path / "slim")
    assert not (tmp_path / "slim").exists()


def test_profiles_that_say_nothing_of_the_bundle_are_refused(bundle: Path, tmp_path: Path) -> None:
    for result, message in (
        (profile({"onnx-int8": {1: 9.0}}), "is of another bundle"),
        (emulated(profile_of(bundle)), "measured under emulation"),
    ):
        path = write_profile(bundle, tmp_path / "other.json", result)
        with pytest.raises(RecipeError, match=message):
            api.choose(bundle, path, out=tmp_path / "slim")
    assert not (tmp_path / "slim").exists()


def test_reports_of_other_bundles_are_refused(bundle: Path, device: Path) -> None:
    report = json.loads((bundle / "report.json").read_text())
    report["variants"]["onnx-int8"]["size_bytes"] += 1
    (bundle / "report.json").write_text(json.dumps(report))
    with pytest.raises(RecipeError, match="onnx-int8 is of another size"):
        api.choose(bundle, device)
    del report["variants"]["onnx-int8"]
    (bundle / "report.json").write_text(json.dumps(report))
    with pytest.raises(RecipeError, match="onnx-int8 is not in it"):
        api.choose(bundle, device)
    (bundle / "report.json").unlink()
    with pytest.raises(BundleError, match="pocketvl verify"):
        api.choose(bundle, device)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_size": "20 apples"}, "size: '20 apples' is not a size such as 1.2MB"),
        ({"metric": "guess"}, "metric: 'guess' is none of match_hard"),
        ({"metric": "ask"}, "was not measured by ask; the report has match_hard"),
        ({"threads": 7}, "nothing was measured at 7 threads, but 1, 2"),
        ({"max_latency_ms": 0.0}, "the largest latency must be above 0"),
    ],
)
def test_options_that_make_no_sense_are_one_line(
    bundle: Path, device: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(PocketVLError) as caught:
        api.choose(bundle, device, **options)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_the_bundle_to_choose_from_is_never_replaced(bundle: Path, device: Path) -> None:
    before = tree(bundle)
    with pytest.raises(RecipeError, match="is the bundle to choose from"):
        api.choose(bundle, device, out=bundle)
    assert tree(bundle) == before


@pytest.mark.parametrize("stored", ["format-1", "format-2.1", "labels-2.0"])
def test_bundles_of_every_format_can_be_slimmed(stored: str, tmp_path: Path) -> None:
    whole = Bundle.open(BUNDLES / stored)
    write_single_variant(whole, "tflite-fp32", tmp_path)
    slim = Bundle.open(tmp_path)
    assert list(slim.manifest.variants) == ["tflite-fp32"]
    assert slim.manifest.version == FORMAT_VERSION
    assert selftest(slim, ["tflite-fp32"], lambda *_: None, 1).passed
