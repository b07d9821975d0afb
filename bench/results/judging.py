"""What a checkpoint in torch, or a variant's files, answers: right or wrong, sample by sample."""

from __future__ import annotations

from pathlib import Path

from bench.results.progress import StageProgress
from bench.results.record import Answers, packed
from bench.results.rows import Teacher
from pocketvl.data.dataset import Dataset
from pocketvl.pipelines.stages.measuring import RunReference
from pocketvl.stage import plan, run
from pocketvl.tasks import TASK_FILE, load_task
from pocketvl.tasks.outputs import OUTPUTS_FILE, load_outputs


def answers_of(
    teacher: Teacher, checkpoint: Path, data: Path, cache: Path, progress: StageProgress | None = None
) -> Answers:
    """What a checkpoint answers in torch, in float.

    Args:
        teacher: it was made of.
        checkpoint: its folder.
        data: a dataset folder that nobody trained on.
        cache: where results of stages are kept.
        progress: called with every event of a stage.
    """
    stage = RunReference(checkpoint, data)
    folder = run(plan([stage]), cache, progress)[stage].folder
    return measured_answers(teacher, folder, folder, data)


def measured_answers(teacher: Teacher, reference: Path, folder: Path, data: Path) -> Answers:
    """What the outputs that a stage left in a folder answer.

    Args:
        teacher: whose metrics are asked.
        reference: what a `RunReference` of the checkpoint left.
        folder: of the outputs.
        data: a dataset folder.
    """
    task = load_task(reference / TASK_FILE)
    found = task.measure(Dataset.open(data), load_outputs(folder / OUTPUTS_FILE)).tasks
    return {metric.value: packed(found[metric].correct) for metric in teacher.metrics if metric in found}
