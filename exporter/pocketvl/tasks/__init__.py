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
from pocketvl_runtime import manifest
from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.schema import decode, encode, parse_json

if TYPE_CHECKING:
    from pocketvl.families.base import Contract
    from pocketvl.families.checkpoint import Checkpoint
    from pocketvl.tasks.base import Task
    from pocketvl_runtime.manifest import Manifest

TASK_FILE = "task.json"

# A plain table: a kind of head is added here and nowhere else.
_TASKS: dict[HeadKind, type[ContrastiveTask | LabelTask | ImageEmbeddingTask | TextEmbeddingTask]] = {
    HeadKind.CONTRASTIVE: ContrastiveTask,
    HeadKind.LABELS: LabelTask,
    HeadKind.IMAGE_EMBEDDING: ImageEmbeddingTask,
    HeadKind.TEXT_EMBEDDING: TextEmbeddingTask,
}


def task_class(kind: HeadKind) -> type[Task]:
    """The task of all models with a kind of head."""
    return _TASKS[kind]


def task_of(contract: Contract, opened: Checkpoint | None = None) -> Task:
    """The task of a model, by its head.

    Args:
        contract: of its checkpoint.
        opened: the checkpoint, where it is open, so that its weights are not opened again.

    Raises:
        SourceError: a number of the head cannot be read from the weights.
    """
    return _TASKS[contract.head.kind].of(contract, opened)


def task_of_manifest(bundle: Manifest) -> Task:
    """The task of a bundle's model, by what its manifest says that it can be asked.

    Raises:
        BundleError: it can be asked nothing that a task here is for.
    """
    for asked in bundle.tasks.values():
        if isinstance(asked, manifest.ContrastiveTask):
            listens = any(isinstance(each, manifest.AudioProcessor) for each in bundle.processors.values())
            return ContrastiveTask(
                asked.first,
                asked.second,
                asked.scale.first,
                asked.bias,
                asked.activation,
                manifest.Modality.AUDIO if listens else manifest.Modality.IMAGE,
                asked.scale.second,
            )
        if isinstance(asked, manifest.LabelsTask):
            return LabelTask(asked.logits, asked.labels, asked.activation)
        if isinstance(asked, manifest.EmbedTask):
            inputs = bundle.graphs[manifest.component_of(asked.embedding)].inputs
            sees = any(port.kind is manifest.PortKind.PIXELS for port in inputs)
            return ImageEmbeddingTask(asked.embedding) if sees else TextEmbeddingTask(asked.embedding)
    raise BundleError(
        f"the bundle's tasks ({', '.join(bundle.tasks) or 'none'}) are none that can be shown in a report"
    )


def save_task(path: Path, task: Task) -> None:
    """Writes a task as JSON, so that it can be had again without the checkpoint."""
    (kind,) = (kind for kind, each in _TASKS.items() if isinstance(task, each))
    path.write_text(json.dumps({"kind": kind.value, "task": encode(task)}, indent=1) + "\n", encoding="utf-8")


def load_task(path: Path) -> Task:
    """Reads what `save_task` wrote.

    Raises:
        DataError: the file is missing, damaged or holds something else.
    """
    try:
        document = parse_json(path.read_bytes(), str(path))
        return decode(_TASKS[HeadKind(document["kind"])], document["task"], str(path))
    except (OSError, KeyError, TypeError, ValueError, BundleError) as error:
        raise DataError(f"{path}: not a task ({error}); delete it and run again") from error
