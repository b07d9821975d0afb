"""What a row's checkpoint costs and answers, in torch and in the files that are exported of it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zstandard import ZstdCompressor

from bench.results.judging import answers_of, measured_answers
from bench.results.progress import StageProgress, rows_shown
from bench.results.record import (
    ROW_FILE,
    TRAINED_FILE,
    Answers,
    Files,
    Measured,
    Trained,
    checkpoint_digest,
    checkpoint_of,
    dataset_digest,
    key_of,
    read_record,
    row_folder,
    versions_of,
    write_record,
)
from bench.results.rows import Row, TrainingData
from pocketvl.compress.costs import total_cost
from pocketvl.errors import DataError
from pocketvl.families import open_checkpoint
from pocketvl.pipelines.compress_chain import stages_of
from pocketvl.pipelines.fallback import variant_run
from pocketvl.pipelines.stages.bundling import MakeGoldenPack
from pocketvl.pipelines.stages.lowering import GraphStage
from pocketvl.pipelines.stages.measuring import RunReference, RunVariant
from pocketvl.pipelines.variants import Fallbacks, VariantStages
from pocketvl.recipes.export_recipe import DEFAULT, read_export_recipe
from pocketvl.stage import plan, run
from pocketvl_runtime.manifest import Engine, Precision, variant_name

ZSTD_LEVEL = 19
_NOT_TRAINED = Trained("", 0.0, "", 0, 0)


@dataclass(frozen=True)
class Folders:
    """The folders that measuring reads and writes.

    Attributes:
        judged: a dataset folder that nobody trained on.
        train: what rows learned from; data alone decides what is pruned before any learning.
        calibration: a dataset folder.
        work: where rows are kept.
        cache: where results of stages are kept.
    """

    judged: Path
    train: TrainingData
    calibration: Path
    work: Path
    cache: Path


@dataclass(frozen=True)
class Export:
    """The graphs of a row: in float, and in its small precision; none that falls short has layers moved."""

    row: Row
    checkpoint: Path
    folders: Folders

    def graphs(self, engine: Engine, precision: Precision) -> tuple[GraphStage, ...]:
        """One a component."""
        recipe = read_export_recipe(DEFAULT)
        stages = VariantStages(self.checkpoint, self.folders.calibration, recipe, is_quantized=True)
        return stages.graphs(engine, precision, Fallbacks())

    def run_of(self, engine: Engine) -> RunVariant:
        """What the small graphs give for the judged data."""
        base = MakeGoldenPack(self.checkpoint, self.folders.calibration, self.row.name)
        name = variant_name(engine, self.row.precision)
        return variant_run(base, self.folders.judged, name, self.graphs(engine, self.row.precision))


def measure_rows(rows: Sequence[Row], folders: Folders) -> tuple[Row, ...]:
    """Measure all rows whose checkpoint is there and that are not measured yet.

    Returns:
        The rows that have no checkpoint.
    """
    there = [row for row in rows if is_trained(folders.work, row)]
    with rows_shown(there, "measure") as started:
        for row in there:
            measure_row(row, folders, started(row))
    return tuple(row for row in rows if row not in there)


def is_trained(work: Path, row: Row) -> bool:
    """Whether a row's checkpoint is whole."""
    return not row.steps or (row_folder(work, row) / TRAINED_FILE).is_file()


def measure_row(row: Row, folders: Folders, progress: StageProgress | None = None) -> bool:
    """Measure one row.

    Returns:
        Whether anything was to be done.
    """
    checkpoint, folder = checkpoint_of(folders.work, row), row_folder(folders.work, row)
    trained = read_record(Trained, folder / TRAINED_FILE) if row.steps else _NOT_TRAINED
    if trained is None:
        raise DataError(f"{folder / TRAINED_FILE} cannot be read: train {row.name} again")
    export = Export(row, checkpoint, folders)
    key = _key(export, trained)
    found = read_record(Measured, folder / ROW_FILE)
    if found is not None and found.key == key and (folder / "graphs").is_dir() == row.teacher.exported:
        if all(files.zstd_bytes is not None for files in found.files.values()):
            return False
        zipped = {name: zipped(files, name, folder / "graphs") for name, files in found.files.items()}
        write_record(folder / ROW_FILE, replace(found, files=zipped))
        return True
    folder.mkdir(parents=True, exist_ok=True)
    begin, scratch = time.perf_counter(), folder / "cache"
    before = _before(row, folders, scratch, progress)
    after = answers_of(row.teacher, checkpoint, folders.judged, scratch, progress)
    cost = total_cost(open_checkpoint(checkpoint))
    files = _export(export, scratch, progress) if row.teacher.exported else {}
    seconds = time.perf_counter() - begin
    record = Measured(
        key, row.described(), cost.parameters, cost.macs, before, after, files, trained, seconds
    )
    write_record(folder / ROW_FILE, record)
    shutil.rmtree(scratch, ignore_errors=True)  # of use to this row alone, and large
    return True


def _key(export: Export, trained: Trained) -> str:
    """Of all that a row's figures depend on."""
    row, folders = export.row, export.folders
    stages = [RunReference(export.checkpoint, folders.judged)]
    planned = plan([*stages, *map(export.run_of, Engine)] if row.teacher.exported else stages)
    return key_of(
        described=row.described(),
        checkpoint=checkpoint_digest(export.checkpoint),
        trained=trained.key,
        judged=dataset_digest(folders.judged),
        calibration=dataset_digest(folders.calibration),
        versions=versions_of(planned),
    )


def _before(row: Row, folders: Folders, scratch: Path, progress: StageProgress | None) -> Answers:
    """What the same steps without any learning answer."""
    recipe = row.recipe_before
    if recipe is None:
        return {}
    stages = stages_of(row.teacher.checkpoint, folders.train.of(row), recipe)
    checkpoint = run(plan(stages), folders.cache, progress)[stages[-1]].folder
    return answers_of(row.teacher, checkpoint, folders.judged, scratch, progress)


def _export(export: Export, scratch: Path, progress: StageProgress | None) -> dict[str, Files]:
    """Leave all graphs in the row's folder, and run the small ones."""
    row = export.row
    variants = [(e, p) for e in Engine for p in (Precision.FP32, row.precision)]
    graphs = {pair: export.graphs(*pair) for pair in variants}
    runs = {engine: export.run_of(engine) for engine in Engine}
    wanted = [stage for each in graphs.values() for stage in each]
    results = run(plan([*wanted, *runs.values()]), scratch, progress)
    target = row_folder(export.folders.work, row) / "graphs"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    files = {}
    for (engine, precision), stages in graphs.items():
        paths = [results[stage].folder / stage.file for stage in stages]
        for path in paths:
            shutil.copyfile(path, target / path.name)
        files[variant_name(engine, precision)] = Files(sum(path.stat().st_size for path in paths))
    for engine, stage in runs.items():
        answers = measured_answers(
            row.teacher, results[stage.reference].folder, results[stage].folder, export.folders.judged
        )
        name = variant_name(engine, row.precision)
        files[name] = replace(files[name], answers=answers)
    return {name: zipped(each, name, target) for name, each in files.items()}


def zipped(files: Files, variant: str, graphs: Path) -> Files:
    """The same with the size of a variant's graphs in zstd."""
    engine, precision = variant.split("-")
    return replace(files, zstd_bytes=zstd_size(*sorted(graphs.glob(f"*.{precision}.{engine}"))))


def zstd_size(*paths: Path) -> int:
    """Bytes that files take as downloads, each compressed with zstd at level 19."""
    return sum(len(ZstdCompressor(level=ZSTD_LEVEL).compress(path.read_bytes())) for path in paths)
