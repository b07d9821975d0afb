"""What a model gives for a dataset goes into report and gate the same way, whatever its head."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pocketvl.data.dataset import Dataset, questions_of
from pocketvl.evaluate.compare import reference_metrics, variant_metrics
from pocketvl.evaluate.html import render_html
from pocketvl.evaluate.report import MachineReport, Report, VariantReport, describe_data
from pocketvl.families import open_checkpoint
from pocketvl.network.specification import ComponentSpec, Granularity, GridSpec, LayerSpec, Mode, Scheme
from pocketvl.observe.calibration import Calibration
from pocketvl.pipelines.stages.measuring import NOTES_FILE, RunReference
from pocketvl.quantize.component import quantize_component
from pocketvl.quantize.settings import QuantizeSettings, Rounding
from pocketvl.quantize.simulate import simulated
from pocketvl.select.gate import judge_report, parse_gate
from pocketvl.stage import PlanError, plan, run
from pocketvl.tabletop.folder import write_tabletop
from pocketvl.tasks import task_of
from pocketvl.tasks.encoding import Encoder
from pocketvl.tasks.metrics import Metric
from pocketvl.tasks.outputs import OUTPUTS_FILE, load_outputs
from pocketvl.tasks.torch_runner import TorchRunner
from pocketvl_runtime.manifest import Engine, Precision, Status
from tests.families.vilt_folder import LAYER, make_vilt_folder
from tests.runtime.bundles import picture

NEAREST = QuantizeSettings(clip_weights=False, rounding=Rounding.NEAREST, correct_bias=False)


@pytest.fixture(scope="module")
def vilt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_vilt_folder(tmp_path_factory.mktemp("vilt") / "vilt")


def test_a_model_that_answers_is_measured_reported_and_judged(vilt: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_tabletop(tmp_path / "data", seed=5, count=80, size=32)
    data = Dataset.open(tmp_path / "data")
    stage = RunReference(vilt, data.root)
    folder = run(plan([stage]), tmp_path / "cache")[stage].folder
    reference = load_outputs(folder / OUTPUTS_FILE)
    (note,) = json.loads((folder / NOTES_FILE).read_text())
    assert note == "weights are stored in float16, and computed with in float32"
    assert list(reference.arrays) == ["fusion.logits"]
    assert len(reference["fusion.logits"]) == len(questions_of(data))

    opened = open_checkpoint(vilt)
    task, module = task_of(opened.contract), opened.components["fusion"].module
    runner = TorchRunner(opened.components, Encoder.of_contract(opened.contract))
    outcomes = task.measure(data, reference)
    report = Report(
        "tiny",
        "vilt",
        MachineReport("cpu", "avx2", 2),
        reference_metrics(outcomes),
        {},
        describe_data(data, len(reference.texts)),
    )
    for bits, passed in ((8, True), (2, False)):
        grid = GridSpec(bits, Scheme.SYMMETRIC, Granularity.PER_CHANNEL)
        names = [f"{LAYER}.{k}.{part}.dense" for k in range(2) for part in ("intermediate", "output")]
        component = quantize_component(
            module,
            ComponentSpec(dict.fromkeys(names, LayerSpec(Mode.DYNAMIC, grid))),
            Calibration({}),
            NEAREST,
        )
        with simulated(module, component):
            found = task.outputs(runner, data)
        variant = VariantReport(
            Engine.ONNX,
            Precision.INT8DYN,
            Status.EXPERIMENTAL,
            1000,
            metrics=variant_metrics(outcomes, task.measure(data, found)),
            parity=task.parity(reference, found),
        )
        judged = judge_report(
            replace(report, variants={variant.name: variant}), parse_gate("ask=100", task.metrics)
        )
        gate = judged.variants[variant.name].gate
        assert gate is not None
        assert gate.passed == passed
        assert gate.allowance_pp == {Metric.ASK: 100.0}
        assert all("fusion.logits centred_cosine_median" in failure for failure in gate.failures)
        assert set(variant.metrics[Metric.ASK].by_kind) == {
            "colour",
            "shape",
            "count",
            "existence",
            "relation",
        }
        assert "fusion logits" in render_html(judged)


def test_data_without_questions_is_refused_before_anything_runs(vilt: Path, tmp_path: Path) -> None:
    picture((40, 30), seed=1).save(tmp_path / "0.png")
    (tmp_path / "samples.jsonl").write_text('{"image": "0.png", "captions": ["a"]}\n')
    with pytest.raises(PlanError, match="no sample has questions"):
        plan([RunReference(vilt, tmp_path)])
