"""One task per kind of head: how a model is asked, measured and compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pocketvl.tasks.adapter import ContrastiveHead, LabelHead
from pocketvl.tasks.contrastive import ContrastiveTask
from pocketvl.tasks.labels import LabelTask

if TYPE_CHECKING:
    from pocketvl.tasks.adapter import Contract
    from pocketvl.tasks.base import Task

# type of head -> its task. A plain table: a kind of head is added here and nowhere else.
_TASKS: dict[type, Callable[[Contract, Any], Task]] = {ContrastiveHead: ContrastiveTask, LabelHead: LabelTask}


def task_of(contract: Contract) -> Task:
    """The task of a model, by its head."""
    return _TASKS[type(contract.head)](contract, contract.head)
