"""One task per kind of head: how a model is trained, asked, measured and compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from pocketvl.errors import DataError
from pocketvl.network.heads import HeadKind
from pocketvl.tasks.contrastive import ContrastiveTask
from pocketvl.tasks.embedding import ImageEmbeddingTask, TextEmbeddingTask
from pocketvl.tasks.labels import LabelTask
from pocketvl.tasks.reranked import RerankedTask
from pocketvl_runtime import manifest
from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.schema import decode, encode, parse_json

if TYPE_CHECKING:
    from pocketvl.families.base import Contract, Family
    from pocketvl.families.checkpoint import Checkpoint
    from pocketvl.tasks.base import Task
    from pocketvl_runtime.manifest import Manifest

TASK_FILE = "task.json"

# A plain table: a kind of head is added here and nowhere else. Beside it, whether a second head reranks.
_TASKS: dict[
    tuple[HeadKind, bool], type[ContrastiveTask | LabelTask | ImageEmbeddingTask | TextEmbeddingTask]
] = {
    (HeadKind.CONTRASTIVE, False): ContrastiveTask,
    (HeadKind.CONTRASTIVE, True): RerankedTask,
    (HeadKind.LABELS, False): LabelTask,
    (HeadKind.IMAGE_EMBEDDING, False): ImageEmbeddingTask,
    (HeadKind.TEXT_EMBEDDING, False): TextEmbeddingTask,
}


def task_class(family: Family) -> type[Task]:
    """The task of all models of a family."""
    return _TASKS[family.head, family.reranker is not None]


def task_of(contract: Contract, opened: Checkpoint | None = None) -> Task:
    """The task of a model, by its head.

    Args:
        contract: of its checkpoint.
        opened: the checkpoint, where it is open, so that its weights are not opened again.

    Raises:
        SourceError: a number of the head cannot be read from the weights.
    """
    return _TASKS[contract.head.kind, contract.reranker is not None].of(contract, opened)


def task_of_manifest(bundle: Manifest) -> Task:
    """The task of a bundle's model, by what its manifest says that it can be asked.

    Raises:
        BundleError: it can be asked nothing that a task here is for.
    """
    for asked in bundle.tasks.values():
        if isinstance(asked, manifest.ContrastiveTask):
            return _contrastive_of(asked, bundle)
        if isinstance(asked, manifest.LabelsTask):
            return LabelTask(asked.logits, asked.labels, asked.activation)
        if isinstance(asked, manifest.EmbedTask):
            inputs = bundle.graphs[manifest.component_of(asked.embedding)].inputs
            sees = any(port.kind is manifest.PortKind.PIXELS for port in inputs)
            return ImageEmbeddingTask(asked.embedding) if sees else TextEmbeddingTask(asked.embedding)
    raise BundleError(
        f"the bundle's tasks ({', '.join(bundle.tasks) or 'none'}) are none that can be shown in a report"
    )


def _contrastive_of(asked: manifest.ContrastiveTask, bundle: Manifest) -> Task:
    """A contrastive task, and what reranks it."""
    listens = any(isinstance(each, manifest.AudioProcessor) for each in bundle.processors.values())
    first = ContrastiveTask(
        asked.first,
        asked.second,
        asked.scale.first,
        asked.bias,
        asked.activation,
        manifest.Modality.AUDIO if listens else manifest.Modality.IMAGE,
        asked.scale.second,
    )
    for second in bundle.tasks.values():
        if isinstance(second, manifest.MatchTask):
            inputs = bundle.graphs[manifest.component_of(second.logits)].inputs
            (hidden,) = (port.source or "" for port in inputs if port.kind is manifest.PortKind.HIDDEN)
            return RerankedTask(
                **vars(first),
                logits=second.logits,
                hidden=hidden,
                positive_index=second.positive_index,
                match_activation=second.activation,
            )
    return first


def save_task(path: Path, task: Task) -> None:
    """Writes a task as JSON, so that it can be had again without the checkpoint."""
    ((kind, reranks),) = (key for key, each in _TASKS.items() if type(task) is each)
    document = {"kind": kind.value, "reranks": reranks, "task": encode(task)}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def load_task(path: Path) -> Task:
    """Reads what `save_task` wrote.

    Raises:
        DataError: the file is missing, damaged or holds something else.
    """
    try:
        document = parse_json(path.read_bytes(), str(path))
        kind = _TASKS[HeadKind(document["kind"]), document["reranks"]]
        return decode(kind, document["task"], str(path))
    except (OSError, KeyError, TypeError, ValueError, BundleError) as error:
        raise DataError(f"{path}: not a task ({error}); delete it and run again") from error
