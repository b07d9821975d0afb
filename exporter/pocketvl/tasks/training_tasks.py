"""The training task of a model, by its head."""

from __future__ import annotations

from pocketvl.errors import RecipeError
from pocketvl.families.base import Contract
from pocketvl.families.folders.weights import read_scalar
from pocketvl.network.heads import ContrastiveHead, EmbeddingHead
from pocketvl.tasks.contrastive_training import ContrastiveTraining
from pocketvl.tasks.embedding_training import EmbeddingTraining
from pocketvl.tasks.labels_training import LabelTraining
from pocketvl.tasks.outputs import component_of
from pocketvl.tasks.training import TrainingTask
from pocketvl_runtime.manifest import Activation


def training_task(contract: Contract) -> TrainingTask:
    """How the head of a checkpoint is trained.

    Raises:
        RecipeError: its labels are answered by a sigmoid.
        SourceError: what the head stores among the weights cannot be read.
    """
    head, ports = contract.head, contract.components
    pad_id = contract.tokenizer.pad_id if contract.reads else 0
    if isinstance(head, EmbeddingHead):
        return EmbeddingTraining(head.kind, (component_of(head.port),), ports, pad_id)
    if not isinstance(head, ContrastiveHead):
        if head.activation is not Activation.SOFTMAX:
            raise RecipeError(
                f"{contract.folder}: labels are trained by softmax, not {head.activation.value}"
            )
        return LabelTraining(head.kind, (head.component,), ports, pad_id)
    names = tuple(port.partition(".")[0] for port in (head.first, head.second))
    scale = read_scalar(contract.folder, head.scale)
    bias = 0.0 if head.bias is None else read_scalar(contract.folder, head.bias)
    return ContrastiveTraining(head.kind, names, ports, pad_id, scale, bias, head.activation)
