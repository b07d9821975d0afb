"""Trainings of several phases: components as one module, and a folder of states that is theirs alone."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from pocketvl.errors import TrainingError
from pocketvl_runtime.progress import Progress

_CLAIM = "training.json"


class Components(nn.Module):
    """Components as one module, which is trained as a whole."""

    def __init__(
        self, components: Mapping[str, nn.Module], inputs: Mapping[str, int] = MappingProxyType({})
    ) -> None:
        """Args: components: by name. inputs: how many each takes, 1 where nothing is said."""
        super().__init__()
        self.components = nn.ModuleDict(components)
        self._inputs = {name: inputs.get(name, 1) for name in components}

    def forward(self, *inputs: torch.Tensor) -> tuple[Any, ...]:
        """The outputs of each, of its own inputs: those of the first component come first."""
        left = iter(inputs)
        return tuple(
            component(*islice(left, self._inputs[name])) for name, component in self.components.items()
        )


def named(phase: str, progress: Progress | None) -> Progress | None:
    """Progress that says which phase it is of."""
    if progress is None:
        return None
    return lambda done, total, news: progress(done, total, f"{phase}: {news}")


def begun_digest(settings: object, models: Iterable[nn.Module]) -> hashlib._Hash:
    """SHA-256 of what a training depends on, to which its data is to be added: settings, and weights."""
    digest = hashlib.sha256(json.dumps(settings).encode())
    for model in models:
        for name, value in model.state_dict().items():
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest


def claim(work: Path, identity: str) -> None:
    """Write into `work` what is trained there, or check that it is this.

    Args:
        work: made if it does not exist.
        identity: differs for trainings that differ in anything.

    Raises:
        TrainingError: it is something else.
    """
    path, wanted = work / _CLAIM, {"training": identity}
    if not path.is_file():
        work.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(f".{secrets.token_hex(4)}")
        half.write_text(json.dumps(wanted) + "\n", encoding="utf-8")
        half.replace(path)  # a claim that was cut off would be no JSON
    elif json.loads(path.read_text(encoding="utf-8")) != wanted:
        raise TrainingError(f"{work} holds a training of another model, other data or settings: delete it")
