"""The shipped ViLT, from its checkpoint to answers on the device."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from pocketvl import api
from pocketvl.data.dataset import Dataset, questions_of
from pocketvl.errors import RecipeError
from pocketvl.evaluate.report_json import REPORT_FILE, read_report
from pocketvl.stage import PlanError
from pocketvl.tabletop.folder import write_tabletop
from pocketvl.tasks.metrics import Metric
from pocketvl_runtime import load
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.manifest import Manifest, Status
from pocketvl_runtime.selftest import selftest
from tests.families.vilt_folder import make_vilt_folder
from tests.runtime.test_cli import answer

SOURCE = Path(__file__).parents[2] / "checkpoints" / "tabletop-vilt"
VARIANTS = ("onnx-int8", "tflite-int8")
GATE = "ask=10"
TYPES = {"colour", "shape", "count", "existence", "relation"}


@dataclass(frozen=True)
class Exported:
    """A bundle, and the datasets that it was calibrated and judged with."""

    calibration: Path
    data: Path
    bundle: Path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root = tmp_path_factory.mktemp("ask")
    made = Exported(root / "calibration", root / "data", root / "bundle")
    for folder, seed, count in ((made.calibration, 21, 48), (made.data, 22, 40)):
        folder.mkdir()
        write_tabletop(folder, seed, count)
    result = api.export(
        SOURCE,
        made.bundle,
        calibration=made.calibration,
        data=made.data,
        variants=VARIANTS,
        gate=GATE,
        cache=root / "cache",
    )
    assert result.failures == ()
    return made


def test_both_engines_int8_answer_like_torch(exported: Exported) -> None:
    manifest = Manifest.read(exported.bundle / "manifest.json")
    assert set(manifest.tasks) == {"ask"}
    assert {variant.status for variant in manifest.variants.values()} == {Status.ACCEPTED}
    report = read_report(exported.bundle / REPORT_FILE)
    reference = report.reference[Metric.ASK]
    assert reference.n == len(questions_of(Dataset.open(exported.data)))
    assert set(reference.by_kind) == TYPES
    assert reference.value > 0.6 > (reference.constant or 1)
    for variant in report.variants.values():
        assert variant.gate is not None
        assert variant.gate.fallbacks == ()
        assert abs(variant.metrics[Metric.ASK].drop_pp or 0) < 3
        assert set(variant.latency_ms) == {"decode", "preprocess", "tokens", "fusion", "post", "total"}
    page = (exported.bundle / "report.html").read_text()
    assert "Latency of the fusion graph" in page
    assert all(kind in page for kind in TYPES)


def test_the_golden_questions_hold(exported: Exported) -> None:
    report = selftest(Bundle.open(exported.bundle), VARIANTS)
    assert report.failures == report.notes == ()
    assert report.answers == 12


def test_questions_are_answered_on_the_device(exported: Exported) -> None:
    dataset = Dataset.open(exported.data)
    asked = [each for each in questions_of(dataset) if each.type in ("count", "existence")]
    loaded = load(exported.bundle, "tflite-int8")
    right = 0
    for each in asked:
        (result,) = loaded.ask(dataset.samples[each.sample].image, each.text).results
        right += result.answers[0].answer == each.answer
    assert right > 0.8 * len(asked)
    first = dataset.samples[0]
    words = (
        "--image",
        first.image,
        "--question",
        first.qa[0]["question"],
        "--variant",
        "tflite-int8",
        "--json",
    )
    (told,) = answer("ask", exported.bundle, *words)["results"]
    (result,) = loaded.ask(first.image, first.qa[0]["question"]).results
    assert told["answers"][0]["answer"] == result.answers[0].answer


def test_verify_measures_it_again_and_knows_its_checkpoint(exported: Exported, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(exported.bundle, tmp_path / "bundle"))
    before = read_report(bundle / REPORT_FILE)
    after = api.verify(bundle, SOURCE, exported.data, gate=GATE)
    for name, variant in after.variants.items():
        assert variant.metrics == before.variants[name].metrics
    with pytest.raises(RecipeError, match="was not exported from"):
        api.verify(bundle, make_vilt_folder(tmp_path / "other"), exported.data, gate=GATE)


def test_data_without_questions_are_refused_with_advice(exported: Exported, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(exported.data, tmp_path / "mute"))
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    (folder / "samples.jsonl").write_text("".join(json.dumps({**row, "qa": []}) + "\n" for row in rows))
    for calibration, data in ((folder, exported.data), (exported.calibration, folder)):
        with pytest.raises(PlanError, match=r"mute: no sample has questions and answers.* add them to"):
            api.export(SOURCE, tmp_path / "out", calibration=calibration, data=data, cache=tmp_path / "cache")
