"""What a checkpoint in torch, or a variant's files, answers: right or wrong, sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from bench.results.progress import Tell
from bench.results.record import Answers, packed
from bench.results.rows import Kind, Teacher
from pocketvl.data.dataset import Dataset
from pocketvl.evaluate.answers import answer_accuracy
from pocketvl.evaluate.embeddings import load_embeddings
from pocketvl.evaluate.tasks import Metric, measure_tasks
from pocketvl.families import open_checkpoint
from pocketvl.pipelines.stages.measuring import EMBEDDINGS_FILE, EmbedReference
from pocketvl.stage import plan, run

Judge = Callable[[Teacher, Path, Path, Path, Tell | None], Answers]


def answers_of(
    teacher: Teacher, checkpoint: Path, data: Path, cache: Path, tell: Tell | None = None
) -> Answers:
    """What a checkpoint answers in torch, in float.

    Args:
        teacher: it was made of.
        checkpoint: its folder.
        data: a dataset folder that nobody trained on.
        cache: where results of stages are kept.
        tell: is told of stages.
    """
    return _JUDGES[teacher.kind](teacher, checkpoint, data, cache, tell)


def embedded_answers(teacher: Teacher, folder: Path, data: Path) -> Answers:
    """What the embeddings that a stage left in a folder answer."""
    tasks = measure_tasks(Dataset.open(data), load_embeddings(folder / EMBEDDINGS_FILE)).tasks
    return {metric.value: packed(tasks[metric].correct) for metric in teacher.metrics if metric in tasks}


def _dual_encoder(teacher: Teacher, checkpoint: Path, data: Path, cache: Path, tell: Tell | None) -> Answers:
    stage = EmbedReference(checkpoint, data)
    return embedded_answers(teacher, run(plan([stage]), cache, tell)[stage].folder, data)


def _answering(teacher: Teacher, checkpoint: Path, data: Path, cache: Path, tell: Tell | None) -> Answers:
    correct = answer_accuracy(open_checkpoint(checkpoint), Dataset.open(data)).correct
    return {Metric.ASK.value: packed(correct)}


_JUDGES: Mapping[Kind, Judge] = {Kind.DUAL_ENCODER: _dual_encoder, Kind.ANSWERING: _answering}
