"""The tables of results: what is rendered of records, and that nothing is trained or measured twice."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.results.latency import LatencyReport, Took, VariantLatency
from bench.results.measure import Folders, is_trained, measure_row, measure_rows, zipped, zstd_size
from bench.results.record import (
    LATENCY_FILE,
    ROW_FILE,
    TRAINED_FILE,
    Files,
    Measured,
    Trained,
    checkpoint_of,
    packed,
    read_measured,
    read_record,
    row_folder,
    write_record,
)
from bench.results.render import write_results
from bench.results.rows import (
    CONTRASTS,
    ROUNDS,
    Budget,
    Row,
    Teacher,
    TrainingData,
    all_rows,
    chosen_rows,
)
from bench.results.train import Stopwatch, train_row
from pocketvl.compress.methods.prune_units import PruneUnits
from pocketvl.errors import DataError
from pocketvl.recipes.compress_recipe import Step
from pocketvl.tabletop.folder import write_tabletop
from pocketvl.train.settings import Phase, TrainingSettings
from tests.families.tiny import make_tiny_clip

SAMPLES = 400
ROWS = all_rows(Budget())
SHOWN = ("teacher", "neurons-30", "neurons-60", "sparse-80", "student-embedding", "student-labels")


def answers(right: float, seed: int) -> str:
    """Answers of which an exact share is right."""
    correct = np.arange(SAMPLES) < round(right * SAMPLES)
    return packed(np.random.default_rng(seed).permutation(correct))


def record(work: Path, row: Row, right: float, size: int) -> Measured:
    """Writes what would have been measured of a row."""
    told = {metric.value: answers(right, place) for place, metric in enumerate(row.teacher.metrics)}
    before = dict.fromkeys(told, "0" * SAMPLES) if row.recipe_before else {}
    files = {f"{engine}-fp32": Files(4 * size) for engine in ("onnx", "tflite")}
    files |= {
        f"{engine}-{row.precision.value}": Files(size, told, size // 2) for engine in ("onnx", "tflite")
    }
    trained = Trained("key", 150.0, "a processor", 12, row.training_steps)
    found = Measured("key", row.described(), 7_000_000, 250_000_000, before, told, files, trained, 60.0)
    row_folder(work, row).mkdir(parents=True, exist_ok=True)
    write_record(row_folder(work, row) / ROW_FILE, found)
    return found


def timed(work: Path, teacher: Teacher, ratios: dict[str, float]) -> None:
    """Writes what would have been timed: the same ratio for every variant of a row."""
    names = [f"{engine}-{precision}" for engine in ("onnx", "tflite") for precision in ("fp32", "int8")]
    rows = {
        row: {name: VariantLatency({"image_encoder": Took(1.0, 1.5)}, ratio) for name in names}
        for row, ratio in ratios.items()
    }
    (work / teacher.name).mkdir()
    report = LatencyReport("key", "a processor, avx2", ("engine 1.0",), 2, 60, rows)
    write_record(work / teacher.name / LATENCY_FILE, report)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """Records of a few rows."""
    folder = tmp_path / "work"
    for place, row in enumerate(chosen_rows(ROWS, SHOWN)):
        record(folder, row, 0.9 - 0.05 * place, 6_000_000 - 500_000 * place)
    timed(folder, ROWS[0].teacher, {name: 1.0 if name == "teacher" else 0.97 for name in SHOWN})
    return folder


def _line(page: str, label: str) -> list[str]:
    return next(line for line in page.splitlines() if line.startswith(f"| {label} |")).split(" | ")


def test_every_row_has_a_name_of_its_own_and_the_issue_s_budget() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    longer = ("recipe-", "fusion")
    fixed = {r.training_steps for r in ROWS if r.learns and not r.name.startswith(longer)}
    assert max(fixed) - min(fixed) < ROUNDS  # what three rounds cannot share is left out
    assert {name for each in CONTRASTS for name in (each.row, each.against)} <= set(names)


def test_an_unknown_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no such row: wheels; there are teacher, .*neurons-30"):
        chosen_rows(ROWS, ["wheels"])


def test_the_page_holds_what_the_records_say(work: Path, tmp_path: Path) -> None:
    missing = write_results(ROWS, work, tmp_path / "RESULTS.md")
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    sizes, rates = page.split("### match_hard")
    assert _line(sizes, "30 % gone")[1:7] == ["7.00", "250", "5.50", "5.50", "2.75", "2.75"]
    assert "0.97" in _line(sizes, "30 % gone")[7]
    told = _line(rates, "30 % gone")
    assert told[1].startswith("0.0 (")
    assert told[2].startswith("85.0 (81.2 to 88.2")
    assert told[3].startswith("-5.00 (")
    assert "a processor, avx2" in page
    assert {row.name for row in missing} == {row.name for row in ROWS} - set(SHOWN)
    assert "Not measured yet: teacher-int4, " in page
    assert max(len(line) for line in page.splitlines() if not line.startswith("|")) <= 120


def test_sections_of_teachers_that_were_not_measured_stay(work: Path, tmp_path: Path) -> None:
    page, others = tmp_path / "RESULTS.md", tmp_path / "others"
    write_results(ROWS, work, page)
    of_clip = page.read_text(encoding="utf-8").split("## tabletop-clip-teacher")[1]
    record(others, next(row for row in ROWS if row.name == "vilt"), 0.8, 2_000_000)
    for _ in range(2):
        write_results(ROWS, others, page)
        assert page.read_text(encoding="utf-8").count("## tabletop-clip-teacher") == 1
        one, other = page.read_text(encoding="utf-8").split("## tabletop-vilt")
        assert one.split("## tabletop-clip-teacher")[1].rstrip() == of_clip.rstrip()
        assert _line(other, "the teacher, int8")[1].startswith("7.00")


@pytest.mark.parametrize(("other", "verdict"), [(0.4, "yes"), (0.65, "no"), (0.9, "the other way round")])
def test_a_claim_is_judged_by_its_interval(work: Path, tmp_path: Path, other: float, verdict: str) -> None:
    """The distilled student has 65 % right."""
    record(work, next(row for row in ROWS if row.name == "student-labels"), other, 4_000_000)
    write_results(ROWS, work, tmp_path / "RESULTS.md")
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert _line(page, "the student: distilled against taught by labels")[-1] == f"{verdict} |"


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(0.99, "do not run faster here"), (0.5, "run faster in some")]
)
def test_what_zeros_buy_is_said_by_the_figure(tmp_path: Path, ratio: float, verdict: str) -> None:
    for row in chosen_rows(ROWS, ("teacher", "sparse-80")):
        record(tmp_path / "work", row, 0.8, 6_000_000)
    timed(tmp_path / "work", ROWS[0].teacher, {"teacher": 1.0, "sparse-80": ratio})
    write_results(ROWS, tmp_path / "work", tmp_path / "RESULTS.md")
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert verdict in page
    assert f"80 % of weights 0, LiteRT int8: {ratio:.2f}" in page


def test_the_same_records_give_the_same_picture(work: Path, tmp_path: Path) -> None:
    pictures = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_results(ROWS, work, tmp_path / name / "RESULTS.md")
        pictures.append((tmp_path / name / "results.png").read_bytes())
    assert pictures[0] == pictures[1]
    with Image.open(tmp_path / "one" / "results.png") as opened:
        assert np.asarray(opened.convert("RGB")).std() > 5


def test_a_row_that_was_measured_with_other_steps_is_not_shown(work: Path, tmp_path: Path) -> None:
    missing = write_results(all_rows(Budget(5, 5, 5)), work, tmp_path / "RESULTS.md")
    assert {row.name for row in missing} == {row.name for row in ROWS} - {"teacher"}


def test_without_the_teacher_there_is_nothing_to_hold_rows_against(work: Path, tmp_path: Path) -> None:
    (row_folder(work, ROWS[0]) / ROW_FILE).unlink()
    with pytest.raises(DataError, match="tabletop-clip-teacher itself is not measured"):
        write_results(ROWS, work, tmp_path / "RESULTS.md")


def test_time_spent_before_an_interruption_counts(tmp_path: Path) -> None:
    (tmp_path / "spent.txt").write_text("120.5")
    assert Stopwatch(tmp_path / "spent.txt").seconds > 120.5


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Row, Folders]:
    """A row of a tiny model, none of whose graphs are exported, and what it is measured with."""
    root = tmp_path_factory.mktemp("tiny")
    for name, seed, count in (("train", 31, 12), ("judged", 32, 100)):
        (root / name).mkdir()
        write_tabletop(root / name, seed, count, size=40)
    teacher = Teacher("tiny", make_tiny_clip(root / "tiny", seed=3), exported=False)
    phases = (Phase(2, ("image_encoder",)), Phase(2, ("text_encoder",)), Phase(2))
    learn = Step(learn=TrainingSettings(phases, batch_size=4))
    row = Row("half", "Neurons", "half gone", (Step(PruneUnits(ratio=0.5)), learn), teacher)
    return row, Folders(
        root / "judged",
        TrainingData(root / "train", root / "train"),
        root / "train",
        root / "work",
        root / "cache",
    )


def test_no_row_is_trained_or_measured_twice(tiny: tuple[Row, Folders], tmp_path: Path) -> None:
    row, folders = tiny
    folders = replace(folders, work=tmp_path)
    train = folders.train.rows, folders.work, folders.cache
    assert not is_trained(folders.work, row)
    assert measure_rows([row], folders) == (row,)
    assert train_row(row, *train)
    assert not train_row(row, *train)
    assert measure_row(row, folders)
    measured = read_measured(folders.work, row)
    assert measured is not None
    assert len(measured.before["match_hard"]) == len(measured.after["retrieval_r1"]) == 100
    assert measured.files == {}
    assert measured.trained.optimizer_steps == 6
    assert measured.trained.samples == 12
    assert not measure_row(row, folders)

    other = replace(row, steps=(Step(PruneUnits(ratio=0.25)), *row.steps[1:]))
    assert train_row(other, *train)
    assert measure_row(other, folders)
    smaller = read_measured(folders.work, other)
    assert smaller is not None
    assert smaller.parameters > measured.parameters
    assert read_measured(folders.work, row) is None


def test_a_checkpoint_made_elsewhere_is_measured_here(tiny: tuple[Row, Folders], tmp_path: Path) -> None:
    row, folders = tiny
    there, here = replace(folders, work=tmp_path / "there"), replace(folders, work=tmp_path / "here")
    train_row(row, there.train.rows, there.work, there.cache)
    shutil.copytree(there.work, here.work)
    assert not train_row(row, here.train.rows, here.work, tmp_path / "another cache")
    assert measure_row(row, here)


def test_a_row_stopped_before_its_record_is_made_again(tiny: tuple[Row, Folders], tmp_path: Path) -> None:
    row, folders = tiny
    train_row(row, folders.train.rows, tmp_path, folders.cache)
    first = checkpoint_of(tmp_path, row) / "model.safetensors"
    weights = first.read_bytes()
    (row_folder(tmp_path, row) / TRAINED_FILE).unlink()
    (checkpoint_of(tmp_path, row) / "model.safetensors").write_bytes(b"half")
    assert train_row(row, folders.train.rows, tmp_path, folders.cache)
    assert first.read_bytes() == weights
    assert read_record(Trained, row_folder(tmp_path, row) / TRAINED_FILE) is not None


def test_only_recipes_learn_from_the_recipes_data(tmp_path: Path) -> None:
    data = TrainingData(tmp_path / "rows", tmp_path / "recipes")
    learned = {data.of(row): {each.name for each in ROWS if data.of(each) == data.of(row)} for row in ROWS}
    assert learned[data.recipes] == {
        "recipe-gentle",
        "recipe-balanced",
        "recipe-tiny",
        "recipe-tiny-int4",
    }
    assert len(learned[data.rows]) > 30


def test_zeros_are_small_as_a_download_and_each_variants_files_are_its_own(tmp_path: Path) -> None:
    random = np.random.default_rng(0).bytes(20_000)
    for name, content in (("a.int8.onnx", bytes(20_000)), ("b.int8.onnx", random), ("a.fp32.onnx", random)):
        (tmp_path / name).write_bytes(content)
    assert zstd_size(tmp_path / "a.int8.onnx") < 100
    files = zipped(Files(40_000), "onnx-int8", tmp_path)
    assert files.zstd_bytes == zstd_size(tmp_path / "a.int8.onnx") + zstd_size(tmp_path / "b.int8.onnx")
    assert 20_000 < files.zstd_bytes < 20_200


def test_a_record_without_sizes_in_zstd_is_read(work: Path, tmp_path: Path) -> None:
    path = row_folder(work, ROWS[0]) / ROW_FILE
    assert '"zstd_bytes"' in path.read_text()
    before = read_measured(work, ROWS[0])
    assert before is not None
    write_record(
        path, replace(before, files={name: replace(f, zstd_bytes=None) for name, f in before.files.items()})
    )
    assert '"zstd_bytes"' not in path.read_text()
    found = read_measured(work, ROWS[0])
    assert found is not None
    assert {f.zstd_bytes for f in found.files.values()} == {None}
    write_results(ROWS, work, tmp_path / "RESULTS.md")
    sizes = (tmp_path / "RESULTS.md").read_text(encoding="utf-8").split("### match_hard")[0]
    assert _line(sizes, "the teacher, int8")[5:7] == ["", ""]
