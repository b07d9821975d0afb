"""A profile of a bundle: several benches in fresh processes, put together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pocketvl.devices.base import Abilities, BenchRequest
from pocketvl.devices.local import LocalDevice
from pocketvl.devices.profiling import (
    ProfileSettings,
    check_writable,
    default_threads,
    default_variants,
    profile,
    profile_path,
    write_profile,
)
from pocketvl_runtime.bench_result import BenchResult
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.cpus import usable_processors
from pocketvl_runtime.errors import BackendError, InputError
from pocketvl_runtime.progress import Progress
from tests.runtime import bundles, graphs
from tests.runtime.bundles import edit_manifest

STAGES = {"decode", "preprocess", "tokens", "image", "text", "post", "total"}


class RecordingDevice(LocalDevice):
    """A local device that remembers what it was asked."""

    def __init__(self, bundle: Path) -> None:
        super().__init__(bundle)
        self.asked: list[BenchRequest] = []

    def bench(self, request: BenchRequest, progress: Progress | None = None) -> BenchResult:
        self.asked.append(request)
        return super().bench(request, progress)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.write_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def result(tiny: Path) -> BenchResult:
    return LocalDevice(tiny).bench(BenchRequest(("onnx-fp32",), (1,), 2))


def test_a_variant_that_gives_nan_is_timed_all_the_same(tmp_path: Path) -> None:
    broken = bundles.write_bundle(tmp_path / "broken")
    graphs.onnx_image_graph(broken / "graphs" / "image_encoder.fp32.onnx", scale=float("inf"))
    bundles.reseal(broken)
    settings = ProfileSettings(("onnx-fp32",), (1,), runs=1, starts=1)
    assert profile(LocalDevice(broken), settings).variants.keys() == {"onnx-fp32"}


def test_operators_are_asked_for_in_a_process_of_their_own(tiny: Path) -> None:
    device = RecordingDevice(tiny)
    result = profile(device, ProfileSettings(("onnx-fp32",), (1,), runs=1, starts=1, ops=True))
    assert [each.ops for each in device.asked] == [False, True, False]
    assert len(result.variants["onnx-fp32"].graphs) == 2
    assert [peak.threads for peak in result.peaks] == [1]
    assert result.settings.runs == 1


def test_a_device_that_does_not_tell_of_operators_is_refused_before_anything_is_measured(tiny: Path) -> None:
    device = RecordingDevice(tiny)
    device.tells_ops = False
    with pytest.raises(BackendError, match="local does not tell the times of single operators"):
        profile(device, ProfileSettings(("onnx-fp32",), (1,), ops=True))
    assert device.asked == []


@pytest.mark.parametrize(("runs", "most_seconds", "counted"), [(40, 1e-6, 10), (5, 1e-6, 5), (12, 60.0, 12)])
def test_what_takes_long_is_run_less_often(tiny: Path, runs: int, most_seconds: float, counted: int) -> None:
    device = RecordingDevice(tiny)
    settings = ProfileSettings(("onnx-fp32",), (1, 2), runs, starts=1, most_seconds=most_seconds)
    assert profile(device, settings).settings.runs == counted
    assert [each.runs for each in device.asked] == [3, counted]


def test_variants_take_turns_and_each_is_alone_for_its_start_and_memory(tiny: Path) -> None:
    told: list[tuple[int, int, str]] = []
    device = RecordingDevice(tiny)
    variants = ("tflite-fp32", "onnx-fp32")
    settings = ProfileSettings((*variants, "tflite-fp32"), (2, 1), runs=5, starts=2, timeout_s=300)
    result = profile(device, settings, lambda *news: told.append(news))
    assert [(each.variants, each.threads, each.runs) for each in device.asked] == [
        (("tflite-fp32",), (2,), 3),
        (("tflite-fp32",), (2,), 3),
        (("onnx-fp32",), (2,), 3),
        (("onnx-fp32",), (2,), 3),
        (variants, (2, 1), 5),
    ]
    assert {each.timeout_s for each in device.asked} == {300}
    assert result.settings.runs == 5
    assert tuple(result.variants) == variants
    for variant in result.variants.values():
        assert 10e6 < (variant.steady_memory_bytes or 0) <= (variant.peak_memory_bytes or 0) < 2e9
        assert [timing.threads for timing in variant.timings] == [2, 1]
        cold, later = (timing.cold_start_ms for timing in variant.timings)
        assert cold is not None
        assert cold > variant.timings[0].load_ms
        assert later is None
        for timing in variant.timings:
            assert timing.stages.keys() == STAGES
            assert timing.stages["total"].median >= timing.stages["image"].median > 0
    assert told[:4] == [
        (1, 4, "start and memory of tflite-fp32"),
        (2, 4, "start and memory of tflite-fp32"),
        (3, 4, "start and memory of onnx-fp32"),
        (4, 4, "start and memory of onnx-fp32"),
    ]
    assert told[4:] == [(turn, 6, "timing") for turn in range(1, 7)]
    assert result.conditions is not None


def test_a_sustained_load_may_take_its_time(tiny: Path) -> None:
    device = RecordingDevice(tiny)
    settings = ProfileSettings(("onnx-fp32",), (1,), runs=1, starts=1, duration_s=1.0, timeout_s=200)
    result = profile(device, settings)
    assert [each.variant for each in result.sustained] == ["onnx-fp32"]
    assert [(each.duration_s, each.timeout_s) for each in device.asked] == [(0.0, 200), (1.0, 201)]


def test_a_bench_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"the bench of onnx-fp32 failed: .*does not exist"):
        profile(LocalDevice(tmp_path / "none"), ProfileSettings(("onnx-fp32",), (1,)))


def test_a_bench_that_takes_too_long_is_ended(tiny: Path) -> None:
    request = BenchRequest(("onnx-fp32",), (1,), 10**6, timeout_s=1.0)
    with pytest.raises(BackendError, match="the bench of onnx-fp32 took longer than 1 s and was ended"):
        LocalDevice(tiny).bench(request)


def test_samples_are_kept_on_demand(tiny: Path) -> None:
    for samples, count in ((False, None), (True, 4)):
        result = LocalDevice(tiny).bench(BenchRequest(("onnx-fp32",), (1,), 4, samples=samples))
        kept = result.variants["onnx-fp32"].timings[0].stages["total"].samples
        assert (None if kept is None else len(kept)) == count


def test_accepted_variants_are_measured_where_none_is_named(tmp_path: Path) -> None:
    bundle = bundles.write_bundle(tmp_path / "bundle")
    edit_manifest(bundle, lambda m: m["variants"]["onnx-fp32"].update(status="experimental"))
    opened, able = Bundle.open(bundle), LocalDevice(bundle).abilities()
    assert able.usable_processors == usable_processors()
    assert set(able.variants) == set(opened.manifest.variants)
    accepted = default_variants(opened, able, "pi", experimental=False)
    assert set(accepted) == set(opened.manifest.variants) - {"onnx-fp32"}
    assert default_variants(opened, able, "pi", experimental=True) == able.variants
    with pytest.raises(
        InputError, match="pi can run no accepted variant of .*, or measure those that failed"
    ):
        default_variants(opened, Abilities(("onnx-fp32",), 1), "pi", experimental=False)
    with pytest.raises(InputError, match="pi can run no variant of .*: install an engine there$"):
        default_variants(opened, Abilities((), 1), "pi", experimental=True)


@pytest.mark.parametrize(("usable", "threads"), [(1, (1,)), (2, (1, 2)), (3, (1, 3)), (64, (1, 4))])
def test_threads_are_those_that_can_run_at_once(usable: int, threads: tuple[int, ...]) -> None:
    assert default_threads(Abilities((), usable)) == threads


@pytest.mark.parametrize(
    ("device", "file"),
    [
        ("local", "local.json"),
        ("pi@pi5.local:22", "pi-pi5.local-22.json"),
        ("../../etc", "etc.json"),
        ("..", "device.json"),
    ],
)
def test_a_profile_lies_in_its_bundle_under_the_devices_name(device: str, file: str, tmp_path: Path) -> None:
    assert profile_path(tmp_path, device) == tmp_path / "profiles" / file


def test_a_profile_is_written_whole_or_not_at_all(
    result: BenchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "profiles" / "local.json"
    write_profile(result, path)
    assert BenchResult.from_json(path.read_bytes(), path.name) == result
    before = path.read_text()

    def full(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_profile(result, path)
    assert path.read_text() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "folder" / "profile.json")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "p.json", tmp_path / "folder"):
        with pytest.raises(InputError, match="cannot be written; name another place with -o"):
            check_writable(path)


def test_the_result_is_the_documented_format(result: BenchResult) -> None:
    assert json.loads(result.to_json())["version"] == "1.2"
