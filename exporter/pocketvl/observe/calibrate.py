"""Calibration: run a module over samples and keep activation statistics in fixed memory."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from operator import length_hint
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pocketvl.errors import DataError
from pocketvl.observe.calibration import Calibration, LayerCalibration
from pocketvl.observe.observer import TensorObserver
from pocketvl.observe.settings import CalibrationSettings, Observer
from pocketvl_runtime.progress import Progress

__all__ = [
    "Calibration",
    "CalibrationSettings",
    "LayerCalibration",
    "Observer",
    "TensorObserver",
    "calibrate",
]

LAYERS = (nn.Linear, nn.Conv2d)
"""Layers that multiply an activation by weights."""


Feed = NDArray[Any] | tuple[NDArray[Any], ...]

FEW_SAMPLES = 32
# Of one sample, positions that count for second moments, and those that are kept; spread evenly.
_MOST_MULTIPLIED, _MOST_KEPT = 128, 8
_PANELS = 3  # in which the columns of a second moment are computed: those to their left are known
MOST_DIGESTS = 65_536
_SETTINGS = CalibrationSettings()


def calibrate(
    module: nn.Module,
    feeds: Iterable[Feed],
    settings: CalibrationSettings = _SETTINGS,
    progress: Progress | None = None,
    kept: Collection[str] = (),
    skipped: Collection[str] = (),
) -> Calibration:
    """Run a module and observe the inputs and outputs of every linear and convolution.

    What is held does not grow with the samples. Layers that read the same tensor in the first forward must do
    so in all, as in whatever can be exported.

    Args:
        module: in eval mode; left as it is.
        feeds: inputs [B, ...] of any batch size, or [n] for one sample without a batch, or a tuple of them
            for a module of several inputs; read once.
        settings: what is looked for.
        progress: called after each feed.
        kept: names of linears of whose input some vectors are kept; these grow with the samples.
        skipped: names of layers that are not observed, since nothing will quantize them.

    Raises:
        DataError: no samples, values that are not finite, a layer that never ran, or layers that read the
            same tensor in one forward and not in another.
    """
    layers = {
        name: child
        for name, child in module.named_modules()
        if isinstance(child, LAYERS) and name not in skipped
    }
    watch, samples = _Watch(layers, settings, kept), _Samples()
    with torch.no_grad(), watch.hooked():  # not inference_mode: its tensors do not say that they were changed
        for inputs in _read(feeds, progress):
            watch.begin(samples.count(inputs))
            module(*(torch.from_numpy(np.array(values)) for values in inputs))
            watch.end()
    if samples.seen == 0:
        raise DataError("calibration needs at least one sample, and got none")
    return Calibration(watch.result(), warnings=(*samples.warnings(), *watch.warnings()))


def _read(feeds: Iterable[Feed], progress: Progress | None) -> Iterator[tuple[NDArray[Any], ...]]:
    """The inputs of each feed; progress is told when the next one is asked for."""
    total = length_hint(feeds)
    for done, feed in enumerate(feeds, 1):
        yield feed if isinstance(feed, tuple) else (feed,)
        if progress is not None:
            progress(done, max(total, done), "calibration")


def _input_of(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> torch.Tensor:
    """What a layer is called with."""
    values: torch.Tensor = args[0] if args else kwargs["input"]
    return values


def is_pointwise(layer: nn.Module) -> bool:
    """Whether a layer is a convolution that does at each position what a linear would do."""
    if not isinstance(layer, nn.Conv2d):
        return False
    plain = all(size == 1 for size in (*layer.kernel_size, *layer.stride)) and layer.padding in ((0, 0), 0)
    return plain and layer.groups == 1


def _samples_of(inputs: tuple[NDArray[Any], ...]) -> int:
    """How many samples a feed holds."""
    return len(inputs[0]) if inputs[0].ndim > 1 else 1


class _Samples:
    """Counts samples, and those that came before."""

    def __init__(self) -> None:
        self.seen = 0
        self._looked = 0
        self._repeated = 0
        self._digests: set[bytes] = set()

    def count(self, inputs: tuple[NDArray[Any], ...]) -> int:
        """How many samples a feed holds."""
        count = _samples_of(inputs)
        for index in range(count):
            if len(self._digests) == MOST_DIGESTS:
                break
            content = hashlib.blake2b(digest_size=8)
            for values in inputs:
                own = (
                    values[index] if values.ndim and len(values) == count > 1 else values
                )  # or of all samples
                content.update(np.ascontiguousarray(own).data)
            self._looked += 1
            self._repeated += content.digest() in self._digests
            self._digests.add(content.digest())
        self.seen += count
        return count

    def warnings(self) -> Iterator[str]:
        """Warnings about them."""
        if self.seen < FEW_SAMPLES:
            yield f"calibration saw {self.seen} samples only; give it {FEW_SAMPLES} or more"
        if self._repeated:
            yield (
                f"{self._repeated} of {self._looked} calibration samples repeat an earlier one; "
                "give it different ones"
            )


class _Input:
    """Streaming statistics of a layer's input."""

    def __init__(self, name: str, layer: nn.Module, settings: CalibrationSettings, keeps: bool) -> None:
        self.layer = layer
        self._kept: list[torch.Tensor] | None = [] if keeps else None
        self.observer = TensorObserver(f"the input of {name}", settings)
        self.count = 0
        self._sum = np.zeros(0)
        self._moment: torch.Tensor | None = None
        self._multiplied = 0
        self._is_grouped = isinstance(layer, nn.Conv2d) and layer.groups > 1
        self._wants_moment = settings.second_moments
        self._ends: tuple[torch.Tensor, torch.Tensor] | None = None

    def observe(self, values: torch.Tensor, samples: int) -> None:
        """Add an input of the layer."""
        self.observer.observe(values, samples)
        if values.numel() == 0:
            return
        if self._is_grouped:
            for sample in values.detach() if values.ndim == 4 else values.detach()[None]:
                self._add(*_sums(cast(nn.Conv2d, self.layer), sample))
            return
        for rows in _rows(self.layer, values.detach()):
            self._add(rows.sum(0, dtype=torch.float64), len(rows))
            if isinstance(self.layer, nn.Linear) or is_pointwise(self.layer):
                low, high = torch.aminmax(rows, dim=0)
                before = self._ends or (low, high)
                self._ends = torch.minimum(before[0], low), torch.maximum(before[1], high)
            if self._wants_moment:
                self._multiply(_spread(rows, _MOST_MULTIPLIED * samples).float())
            if self._kept is not None:
                self._kept.append(_spread(rows, _MOST_KEPT * samples).clone())

    def _add(self, sums: torch.Tensor, count: int) -> None:
        """Add sums of inputs over so many positions."""
        self._sum = sums.numpy() + (self._sum if len(self._sum) else 0.0)
        self.count += count

    def result(self) -> LayerCalibration:
        """The statistics, without a range of the output. Call once: the moments are divided in place.

        Raises:
            DataError: nothing was seen.
        """
        seen = self.observer.range()
        low, high = (None, None) if self._ends is None else (end.double().numpy() for end in self._ends)
        kept = None if self._kept is None else torch.cat(self._kept).numpy()
        mean = self._sum / self.count
        return LayerCalibration(seen, seen, mean, self._mean_product(), low, high, self.count, kept)

    def constant_channels(self) -> tuple[int, int]:
        """The number of a linear's input channels that never changed, and of all.

        Those of a wider convolution are not looked at: pixels beside a border, or a colour that no picture
        has, may well be the same in all.
        """
        if self._ends is None or self.count < 2:
            return 0, 0
        low, high = self._ends
        return int((low == high).sum()), len(low)

    def _multiply(self, rows: torch.Tensor) -> None:
        """Add products of columns to the upper right of the moment, panel by panel."""
        if self._moment is None:
            self._moment = torch.zeros(rows.shape[1], rows.shape[1])
        for panel in _panels(rows.shape[1]):
            self._moment[panel, panel.start :].addmm_(rows[:, panel].T, rows[:, panel.start :])
        self._multiplied += len(rows)

    def _mean_product(self) -> NDArray[np.float32] | None:
        if self._moment is None:
            return None
        for panel in _panels(len(self._moment)):
            self._moment[panel, : panel.start] = self._moment[: panel.start, panel].T
        moment: NDArray[np.float32] = self._moment.div_(self._multiplied).numpy()
        return moment


def _panels(columns: int) -> Iterator[slice]:
    """Ranges of columns, of which the last may be narrower."""
    width = -(-columns // _PANELS)
    return (slice(start, start + width) for start in range(0, columns, width))


def _spread(rows: torch.Tensor, most: int) -> torch.Tensor:
    """At most so many rows, evenly spread."""
    return rows[:: -(-len(rows) // most)]


def _rows(layer: nn.Module, values: torch.Tensor) -> Iterator[torch.Tensor]:
    """The im2col rows of each output position, [positions, inputs]; of a convolution a sample at a time."""
    if not isinstance(layer, nn.Conv2d):
        yield values.reshape(-1, values.shape[-1])
        return
    for sample in values if values.ndim == 4 else values[None]:
        if is_pointwise(layer):
            yield sample.flatten(1).T
            continue
        size, dilation, stride = _window(layer)
        unfolded = nn.functional.unfold(_padded(layer, sample), size, dilation, 0, stride)
        yield unfolded[0].T  # of [1, inputs, positions]


def _sums(layer: nn.Conv2d, sample: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Of im2col rows their sum over all output positions, float64 [inputs], and how many these are.

    No row is made: of a depthwise convolution they are as many times as large as its input as its kernel has
    weights. What one weight meets is added up along one side, and then along the other.
    """
    padded = _padded(layer, sample)[0].double()  # [C, H, W]
    (rows, columns), dilation, stride = _window(layer)
    height, width = (
        (padded.shape[1 + axis] - dilation[axis] * (size - 1) - 1) // stride[axis] + 1
        for axis, size in enumerate((rows, columns))
    )

    def met(axis: int, index: int, count: int) -> slice:
        first = index * dilation[axis]
        return slice(first, first + stride[axis] * (count - 1) + 1, stride[axis])

    down = torch.stack([padded[:, met(0, row, height)].sum(1) for row in range(rows)], 1)  # [C, rows, W]
    sums = torch.stack([down[:, :, met(1, column, width)].sum(2) for column in range(columns)], 2)
    return sums.flatten(), height * width


def _padded(layer: nn.Conv2d, sample: torch.Tensor) -> torch.Tensor:
    """[1, C, H, W] of a sample [C, H, W]."""
    # the list is right for padding given by name, too
    padding, mode = layer._reversed_padding_repeated_twice, layer.padding_mode
    return nn.functional.pad(sample[None], padding, "constant" if mode == "zeros" else mode)


def _window(layer: nn.Conv2d) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Size, dilation and stride of a convolution's kernel, each of rows and columns."""
    size, dilation, stride = (
        (pair[0], pair[1]) for pair in (layer.kernel_size, layer.dilation, layer.stride)
    )
    return size, dilation, stride


class _Watch:
    """Forward hooks on layers, and their statistics.

    Layers that read the same tensors have one `_Input`, that of the first of them. Which they are is known
    after the first forward; until then each has its own.
    """

    def __init__(
        self, layers: Mapping[str, nn.Module], settings: CalibrationSettings, kept: Collection[str]
    ) -> None:
        self._layers = layers
        self._inputs = {name: _Input(name, layer, settings, name in kept) for name, layer in layers.items()}
        self._outputs = {name: TensorObserver(f"the output of {name}", settings) for name in layers}
        self._leaders: dict[str, str] | None = None
        self._samples = 0
        self._tokens: dict[tuple[int, int], tuple[weakref.ref[torch.Tensor], int]] = {}
        self._numbers = count()
        self._read: dict[str, list[int]] = {}

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Context in which the hooks are registered."""
        handles = []
        try:
            for name, layer in self._layers.items():
                handles.append(layer.register_forward_pre_hook(self._before(name), with_kwargs=True))
                handles.append(layer.register_forward_hook(self._after(name)))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def begin(self, samples: int) -> None:
        """Before a forward over so many samples."""
        self._samples = samples
        self._tokens.clear()
        self._numbers = count()
        self._read.clear()

    def end(self) -> None:
        """After a forward.

        Raises:
            DataError: layers that read the same tensors in the first do no longer, or the other way round.
        """
        leaders = self._groups()
        if self._leaders is None:
            self._leaders = leaders
            self._inputs = {name: self._inputs[leader] for name, leader in leaders.items()}
        for name, leader in leaders.items():
            if self._leaders[name] != leader:
                raise DataError(
                    f"calibration: {name} shares its input with other layers in some samples and not in "
                    "others; a module whose course depends on values cannot be quantized"
                )

    def result(self) -> dict[str, LayerCalibration]:
        """The statistics of each layer.

        Raises:
            DataError: one never ran.
        """
        distinct = {id(seen): seen for seen in self._inputs.values()}
        found = {key: seen.result() for key, seen in distinct.items()}
        return {
            name: replace(found[id(seen)], output=self._outputs[name].range())
            for name, seen in self._inputs.items()
        }

    def warnings(self) -> Iterator[str]:
        """Warnings about the layers' inputs."""
        readers: dict[int, list[str]] = {}
        for name, seen in self._inputs.items():
            readers.setdefault(id(seen), []).append(name)
        for names in readers.values():
            constant, channels = self._inputs[names[0]].constant_channels()
            if constant:
                yield f"{constant} of {channels} input channels of {', '.join(names)} never change"

    def _groups(self) -> dict[str, str]:
        """Per layer the first that read the same tensors, in the same order and form."""
        first: dict[tuple[object, ...], str] = {}
        leaders = {}
        for name, layer in self._layers.items():
            read = self._read.get(name)
            key = (name,) if read is None else (*read, *_form(layer))
            leaders[name] = first.setdefault(key, name)
        return leaders

    def _token(self, values: torch.Tensor) -> int:
        """A number for a tensor as it is now: the same object, not changed since, has the same."""
        key = id(values), values._version
        known = self._tokens.get(key)
        if known is not None and known[0]() is values:  # else another tensor has taken a dead one's id
            return known[1]
        self._tokens[key] = weakref.ref(values), next(self._numbers)
        return self._tokens[key][1]

    def _before(self, name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            values = _input_of(args, kwargs)
            self._read.setdefault(name, []).append(self._token(values))
            if self._leaders is None or self._leaders[name] == name:
                self._inputs[name].observe(values, self._samples)

        return hook

    def _after(self, name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> None:
            self._outputs[name].observe(output, self._samples)

        return hook


def _form(layer: nn.Module) -> tuple[object, ...]:
    """What of a layer decides how its input is read."""
    if not isinstance(layer, nn.Conv2d):
        return ("linear",)
    return (
        "convolution",
        layer.kernel_size,
        layer.stride,
        layer.dilation,
        tuple(layer._reversed_padding_repeated_twice),
        layer.padding_mode,
        layer.groups,
    )
