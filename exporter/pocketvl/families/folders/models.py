"""From a folder's config.json and weights to transformers' own model: what all families share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import nn

from pocketvl.errors import SourceError
from pocketvl.families.folders.files import COMPRESSION_FILE, config_path
from pocketvl.families.layers.compression import Compression, reshape_
from pocketvl_runtime.errors import library_text, quoted, shortened

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

ConfigT = TypeVar("ConfigT", bound="PreTrainedConfig")
PretrainedT = TypeVar("PretrainedT", bound="PreTrainedModel")
ModelT = TypeVar("ModelT", bound=nn.Module)

_MOST_LABELS = 100_000
_MOST_NAMED = 3  # tensors in a message


def parse_config(kind: type[ConfigT], stored: dict[str, Any], path: Path, family: str) -> ConfigT:
    """Make a family's configuration of the content of a config.json.

    Args:
        kind: its class.
        stored: the content.
        path: of the file, for messages.
        family: its name, for messages.

    Raises:
        SourceError: transformers does not take it.
    """
    for part in (stored, *(value for value in stored.values() if isinstance(value, dict))):
        labels = part.get("num_labels")
        if isinstance(labels, int) and labels > _MOST_LABELS:  # each of which transformers would give a name
            raise SourceError(f"{path}: num_labels is {quoted(labels)}, more than {_MOST_LABELS}")
    try:
        return kind.from_dict(stored)
    except Exception as error:  # the validators of transformers raise whatever they like
        reason = library_text(error, 300)
        raise SourceError(f"{path} is not a valid {family} configuration: {reason}") from error


def check_sizes(sizes: Mapping[str, object], path: Path) -> None:
    """Raise SourceError where one of a config.json's sizes, by their names there, is no positive number."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SourceError(f"{path}: {name} is {quoted(value)}; one positive number is needed")


def check_channels(count: object, name: str, path: Path) -> None:
    """Raise SourceError where a config.json's number of channels, by its name there, is not a picture's."""
    if count != 3:
        raise SourceError(f"{path}: {name} is {quoted(count)}; pictures have 3")


def build_from(
    kind: type[PretrainedT],
    config: PreTrainedConfig,
    folder: Path,
    family: str,
    *,
    initialised: bool = False,
    attention: str | None = None,
) -> PretrainedT:
    """Build a model in fp32 with uninitialised weights.

    Args:
        kind: its class.
        config: its configuration.
        folder: for messages.
        family: its name, for messages.
        initialised: whether the weights are random, of torch's present state, and can be trained.
        attention: which of transformers' implementations; its own choice where nothing is said.

    Raises:
        SourceError: the configuration is of no model.
    """
    from transformers.initialization import no_init_weights

    chosen = {} if attention is None else {"attn_implementation": attention}
    try:
        with torch.random.fork_rng(devices=[]), nullcontext() if initialised else no_init_weights():
            model = kind._from_config(config, dtype=torch.float32, **chosen)  # type: ignore[no-untyped-call]
    except Exception as error:  # an impossible config fails wherever it first hurts
        reason = library_text(error, 300)
        raise SourceError(
            f"{folder / 'config.json'}: no {family} model can be built from it: {reason}"
        ) from error
    return cast(PretrainedT, model)


def check_model(
    build: Callable[[], ModelT], weights: Mapping[str, torch.Tensor], compression: Compression, folder: Path
) -> None:
    """Compare weights, which may be on the meta device, with a model that takes no memory; see `load_model`.

    Raises:
        SourceError: weights or compression.json are broken, or do not fit the model.
    """
    with torch.device("meta"):
        model = build()
        try:
            reshape_(model, compression, folder)
        except RuntimeError as error:  # more numbers than 64 bits count
            reason = library_text(error, 300)
            raise SourceError(f"{folder / COMPRESSION_FILE}: {reason}") from error
    check_weights(model, weights, folder)


def load_model(
    build: Callable[[], ModelT], weights: Mapping[str, torch.Tensor], compression: Compression, folder: Path
) -> ModelT:
    """Build a model, give it its compressed shapes and the folder's weights; in eval mode.

    Sizes are held against the weights first, in a model that takes no memory: config.json and
    compression.json can ask for more than any machine has.

    Args:
        build: makes it.
        weights: of the folder.
        compression: its shapes.
        folder: for messages.

    Raises:
        SourceError: weights or compression.json are broken, or do not fit the model.
    """
    check_model(build, weights, compression, folder)
    model = build()
    reshape_(model, compression, folder)
    load_weights_(model, weights, folder)
    model.train(False)
    return model


def check_weights(model: nn.Module, weights: Mapping[str, torch.Tensor], where: Path) -> None:
    """Compare the names and shapes of `weights` with a model's.

    Args:
        model: on any device, meta too.
        weights: tensors by parameter name, on any device; those that `model` has no parameter for must be
            none but the position indices that old versions of transformers stored.
        where: the folder, for messages.

    Raises:
        SourceError: tensors are missing, too many or of the wrong shape.
    """
    wanted, given, config = model.state_dict(), _parameters(weights), config_path(where).name
    problems = [
        f"{problem} {_named(names)}"
        for problem, names in (
            ("lack", sorted(set(wanted) - set(given))),
            ("hold unknown", sorted(set(given) - set(wanted))),
        )
        if names
    ]
    if problems:
        raise SourceError(f"{where}: the weights {' and '.join(problems)}; {config} describes another model")
    wrong = [name for name, tensor in given.items() if tensor.shape != wanted[name].shape]
    if wrong:
        shapes = [
            f"{shortened(name, 100)} is {list(given[name].shape)}, {config} asks for "
            f"{list(wanted[name].shape)}"
            for name in wrong[:_MOST_NAMED]
        ]
        raise SourceError(f"{where}: {'; '.join(shapes)}{_more(len(wrong))}")


def _named(names: Sequence[str]) -> str:
    return ", ".join(shortened(name, 100) for name in names[:_MOST_NAMED]) + _more(len(names))


def _more(count: int) -> str:
    return f" and {count - _MOST_NAMED} more" if count > _MOST_NAMED else ""


def load_weights_(model: nn.Module, weights: Mapping[str, torch.Tensor], where: Path) -> None:
    """Copy `weights` into `model`, which keeps its own dtype (fp16 files load into fp32 models).

    Args:
        model: its parameters are overwritten in place.
        weights: as `check_weights` takes them.
        where: the folder, for messages.

    Raises:
        SourceError: a tensor is missing, too many, of the wrong shape, or holds NaN or infinity.
    """
    check_weights(model, weights, where)
    given = _parameters(weights)
    for name, tensor in given.items():
        if not tensor.is_floating_point() or not bool(torch.isfinite(tensor).all()):
            raise SourceError(f"{where}: {name} ({tensor.dtype}) holds values that are not finite floats")
    model.load_state_dict(given)


def _parameters(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in weights.items() if not name.endswith("position_ids")}


def check_layers(config: object, tensors: int, path: Path) -> None:
    """Raise SourceError where a model has more layers than its weights have tensors.

    Args:
        config: as a family's `parse` gives it; the numbers of layers are where transformers has them.
        tensors: how many.
        path: of the file that describes the model, for messages.
    """
    for section in ("", "text_config", "vision_config"):
        part = getattr(config, section, None) if section else config
        for name in ("num_hidden_layers", "depths"):
            value = getattr(part, name, None)
            numbers = [n for n in (value if isinstance(value, list) else [value]) if isinstance(n, int)]
            if sum(numbers) > tensors:
                key = f"{section}.{name}".removeprefix(".")
                raise SourceError(
                    f"{path}: {key} is {quoted(value)}, and the weights are {tensors} tensors in all; "
                    f"{path.name} describes another model"
                )
