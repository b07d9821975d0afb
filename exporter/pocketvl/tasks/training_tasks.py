"""The training task of a checkpoint, by its head."""

from __future__ import annotations

from pocketvl.families.segments import Segments
from pocketvl.families.trainable import Trainable
from pocketvl.network.heads import HeadKind
from pocketvl.network.ports import ComponentPorts, DType, Port, PortKind
from pocketvl.tasks.contrastive_training import ContrastiveTraining
from pocketvl.tasks.labels_training import LabelTraining
from pocketvl.tasks.training import TrainingTask

_PIXELS = Port("pixels", DType.UINT8, (), PortKind.PIXELS)
_IDS = Port("ids", DType.INT32, (), PortKind.TOKEN_IDS)
_EMBEDDING = (Port("embedding", DType.FLOAT32, (), PortKind.EMBEDDING),)
_LOGITS = (Port("logits", DType.FLOAT32, (), PortKind.CLASS_LOGITS),)


def training_task(checkpoint: Trainable) -> TrainingTask:
    """How a checkpoint's head is trained."""
    pad_id, names = checkpoint.tokenizer.pad_id, tuple(role.value for role in checkpoint.roles)
    if names == ("fusion",):
        fusion = {"fusion": ComponentPorts((_PIXELS, _IDS), _LOGITS)}
        return LabelTraining(HeadKind.LABELS, names, fusion, pad_id)
    image, text = names
    ports = {image: ComponentPorts((_PIXELS,), _EMBEDDING), text: ComponentPorts((_IDS,), _EMBEDDING)}
    return ContrastiveTraining(HeadKind.CONTRASTIVE, names, ports, pad_id, checkpoint.logit_scale)


def segments_of(checkpoint: Trainable, name: str) -> Segments | None:
    """The segments of the sequence in a component's layers."""
    return getattr(checkpoint, "segments", None)
