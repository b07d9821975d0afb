"""The one training loop: resumable at any moment, deterministic, on one process or several.

Of several processes (`accelerate launch`, `torchrun`) each runs the module on its share of the batch; what
comes out is gathered again, so that every process sees the losses of the whole batch, in-batch negatives
included, and the curve is that of one process.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from statistics import fmean
from typing import Any, Generic, Protocol, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator, PartialState
from accelerate.utils import set_seed
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from pocketvl.errors import TrainingError
from pocketvl.launch import is_first, processes
from pocketvl.train.settings import LoopSettings, Precision
from pocketvl_runtime.progress import Progress

BatchT = TypeVar("BatchT")
BatchInT = TypeVar("BatchInT", contravariant=True)
Losses = Mapping[str, torch.Tensor]
_PATIENCE = timedelta(days=1)  # of processes that wait for the first one; where that ends, they end at once

_LOSSES = "losses.jsonl"
_SETTINGS = "settings.json"


def launched() -> PartialState:
    """The processes of this launch, brought together where that was not done yet.

    Raises:
        TrainingError: accelerate knows of others than pocketvl.
    """
    several = {"timeout": _PATIENCE} if processes() > 1 else {}
    state = PartialState(cpu=not torch.cuda.is_available(), **several)
    if (state.num_processes, state.is_main_process) != (processes(), is_first()):
        raise TrainingError(
            f"{processes()} processes were started, of which {state.num_processes} found each other: "
            "start them with torchrun or accelerate launch"
        )
    return state


class Objective(Protocol[BatchInT]):
    """Objective: named, weighted losses of one batch; their sum is minimised.

    The module may be wrapped (for several processes, for precision): an objective calls it and takes nothing
    else from it but its parameters.
    """

    def __call__(self, module: nn.Module, batch: BatchInT, step: int) -> Losses: ...


@dataclass(frozen=True)
class TrainReport:
    """The losses by name at every step, earlier sessions included."""

    steps: int
    losses: tuple[Mapping[str, float], ...]


class Trainer(Generic[BatchT]):
    """Trains a module on batches that are a function of the step number.

    The state (weights, optimizer, schedule, random sources, losses so far) is saved in `state_dir` every
    `save_every` steps, in one rename; a run that finds a state there goes on from it.
    """

    def __init__(
        self,
        module: nn.Module,
        batches: Callable[[int], BatchT],
        objective: Objective[BatchT],
        settings: LoopSettings,
        state_dir: Path,
    ) -> None:
        set_seed(settings.seed)
        self._settings, self._state_dir = settings, state_dir
        self._batches, self._objective = batches, objective
        launched()
        self._accelerator = Accelerator(
            cpu=not torch.cuda.is_available(),
            mixed_precision="no",  # whatever the user's accelerate says: `_Forward` knows what is wanted
        )
        optimizer = torch.optim.AdamW(
            _groups(module, settings.weight_decay), settings.learning_rate, (0.9, 0.98)
        )
        schedule = LambdaLR(optimizer, lambda step: _schedule(step, settings))
        # evaluation mode keeps DistributedDataParallel away, which wants gradients of all parameters at every
        # step: components have some that one phase trains and another one does not
        self._module = self._accelerator.prepare_model(module, evaluation_mode=True)
        self._optimizer = self._accelerator.prepare(optimizer)
        self._forward = _Forward(self._module, settings.precision)
        self._schedule = schedule
        self._accelerator.register_for_checkpointing(schedule)
        self._losses: list[dict[str, float]] = []

    def run(self, progress: Progress | None = None) -> TrainReport:
        """Train to the end.

        Raises:
            TrainingError: a loss is not finite, or the state in `state_dir` is of other settings.
        """
        start = self._resume()
        self._module.train()
        for step, batch in _ahead(self._batches, range(start, self._settings.steps)):
            self._losses.append(self._step(step, batch))
            if (step + 1) % self._settings.save_every == 0 or step + 1 == self._settings.steps:
                self._save(step + 1)
            if progress is not None:
                progress(step + 1, self._settings.steps, _told(self._losses[-50:]))
        self._accelerator.wait_for_everyone()  # some may still read the states that others remove next
        return TrainReport(self._settings.steps, tuple(self._losses))

    def _step(self, step: int, batch: BatchT) -> dict[str, float]:
        losses = self._objective(self._forward, batch, step)
        total = torch.stack(list(losses.values())).sum()
        parts = {name: float(value.detach()) for name, value in losses.items()}
        if not math.isfinite(sum(parts.values())):
            raise TrainingError(f"training diverged at step {step}: {parts}; lower the learning rate")
        self._optimizer.zero_grad()
        self._accelerator.backward(total)
        _average_gradients_(self._module)
        self._accelerator.clip_grad_norm_(self._module.parameters(), self._settings.clip_norm)
        self._optimizer.step()
        self._schedule.step()
        return parts

    # --- state ---------------------------------------------------------------------------------------

    def _resume(self) -> int:
        latest = max(self._state_dir.glob("step-*"), default=None, key=lambda p: p.name)
        if latest is None:
            return 0
        saved = json.loads((latest / _SETTINGS).read_text())
        if saved != asdict(self._settings):
            raise TrainingError(
                f"{latest} was saved by a training of other settings: delete {self._state_dir}"
            )
        self._accelerator.load_state(str(latest))
        self._losses = [json.loads(line) for line in (latest / _LOSSES).read_text().splitlines()]
        return len(self._losses)

    def _save(self, step: int) -> None:
        """Every process writes its random state, the first one everything else; one rename makes it count."""
        final, half = self._state_dir / f"step-{step:08d}", self._state_dir / "unfinished"
        everyone, first = self._accelerator.wait_for_everyone, self._accelerator.is_main_process
        if first:
            shutil.rmtree(half, ignore_errors=True)
        everyone()
        self._accelerator.save_state(str(half))
        everyone()
        if first:
            (half / _SETTINGS).write_text(json.dumps(asdict(self._settings)))
            (half / _LOSSES).write_text("".join(json.dumps(row) + "\n" for row in self._losses))
            half.rename(final)
            for older in self._state_dir.glob("step-*"):
                if older != final:
                    shutil.rmtree(older)
        everyone()


class _Forward(nn.Module):
    """Runs a module's forward pass, and nothing else, in the wanted precision and on this process's share.

    accelerate can do the first too, but fixes one precision for the whole process.
    """

    def __init__(self, module: nn.Module, precision: Precision) -> None:
        super().__init__()
        self.module, self._precision = module, precision

    def forward(self, *inputs: torch.Tensor) -> Any:
        device = next(self.module.parameters()).device
        enabled = self._precision is not Precision.FLOAT32
        count = dist.get_world_size() if dist.is_initialized() else 1
        shares = [_share(each, count) for each in inputs]
        with torch.autocast(device.type, torch.bfloat16, enabled=enabled):
            found = self.module(*shares)
        return found if count == 1 else _gathered(found)


def _share(inputs: torch.Tensor, count: int) -> torch.Tensor:
    """This process's rows of [B, ...].

    Raises:
        TrainingError: the processes cannot share them evenly.
    """
    if count == 1:
        return inputs
    if len(inputs) % count:
        raise TrainingError(
            f"{count} processes cannot share {len(inputs)} samples evenly: change the batch size"
        )
    return inputs.chunk(count)[dist.get_rank()]


def _gathered(found: Any) -> Any:
    """The rows of all processes, of a tensor or of all that a tuple holds."""
    if isinstance(found, torch.Tensor):
        return found if found.ndim == 0 else _Gather.apply(found)  # type: ignore[no-untyped-call]
    if isinstance(found, tuple):
        parts = [_gathered(each) for each in found]
        return type(found)(*parts) if hasattr(found, "_fields") else tuple(parts)
    raise TypeError(
        f"a module on several processes gives tensors and tuples of them, not {type(found).__name__}"
    )


class _Gather(torch.autograd.Function):
    """Rows [b, ...] of every process -> [B, ...].

    Backwards every process has the gradients of the whole loss, so that their sum, of which this process
    takes its rows, is as many times the gradient as there are processes; the mean of the parameters'
    gradients takes that off.
    """

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        whole = gradients[0].clone(memory_format=torch.contiguous_format)  # it may be another's, too
        dist.all_reduce(whole)
        return whole.chunk(dist.get_world_size())[dist.get_rank()]


def _average_gradients_(module: nn.Module) -> None:
    """The mean over processes, of what has a gradient at all; it is the same in all of them."""
    if not dist.is_initialized():
        return
    gradients = [each.grad for each in module.parameters() if each.grad is not None]
    whole = torch.cat([each.flatten() for each in gradients])
    dist.all_reduce(whole)
    whole /= dist.get_world_size()
    for each, part in zip(gradients, torch.split(whole, [each.numel() for each in gradients]), strict=True):
        each.copy_(part.view_as(each))


def _told(recent: list[dict[str, float]]) -> str:
    """The mean of each loss of the last step, over the recent steps that have it."""
    means = {name: fmean(row[name] for row in recent if name in row) for name in recent[-1]}
    return "  ".join(f"{name} {mean:.3f}" for name, mean in means.items())


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    parameters = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _schedule(step: int, settings: LoopSettings) -> float:
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def _ahead(batches: Callable[[int], BatchT], steps: range) -> Iterator[tuple[int, BatchT]]:
    """Make the next batch in a second thread while the present one is trained on."""
    if not steps:
        return
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(batches, steps[0])
        for step in steps:
            batch = coming.result()
            if step + 1 < steps.stop:
                coming = thread.submit(batches, step + 1)
            yield step, batch
