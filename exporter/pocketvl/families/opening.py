"""From a folder's config.json, weights and tokenizer to transformers' own model: what all families share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
from torch import nn

from pocketvl.errors import SourceError
from pocketvl.families.checkpoint import TokenizerFile, check_weights, load_weights_, read_weights
from pocketvl.families.compression import Compression, reshape_
from pocketvl.families.folder import COMPRESSION_FILE
from pocketvl_runtime.errors import library_text, quoted

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

ConfigT = TypeVar("ConfigT", bound="PreTrainedConfig")
PretrainedT = TypeVar("PretrainedT", bound="PreTrainedModel")
ModelT = TypeVar("ModelT", bound=nn.Module)

MASKED = -30000.0
"""Added to the scores of places that are not looked at: exp() of it is 0, and fp16 can hold it, unlike fp32's
least value."""
_LEAST_LENGTH = 3
_MOST_LABELS = 100_000


def parse_config(kind: type[ConfigT], stored: dict[str, Any], path: Path, family: str) -> ConfigT:
    """Makes a family's configuration of the content of a config.json.

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
    """Raises SourceError where one of a config.json's sizes, by their names there, is no positive number."""
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SourceError(f"{path}: {name} is {quoted(value)}; one positive number is needed")


def build_from(
    kind: type[PretrainedT],
    config: PreTrainedConfig,
    folder: Path,
    family: str,
    *,
    initialised: bool = False,
    attention: str | None = None,
) -> PretrainedT:
    """Builds a model in fp32; its weights mean nothing.

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


def open_model(
    build: Callable[[], ModelT], config: PreTrainedConfig, compression: Compression, folder: Path
) -> ModelT:
    """Builds a model, gives it its compressed shapes and the folder's weights; in eval mode.

    Sizes are held against the weights first, in a model that takes no memory: config.json and
    compression.json can ask for more than any machine has.

    Args:
        build: makes it.
        config: that it is built from.
        compression: its shapes.
        folder: whose weights it gets.

    Raises:
        SourceError: weights or compression.json are broken, or do not fit the model.
    """
    weights = read_weights(folder)
    _check_layers(config, len(weights), folder / "config.json")
    with torch.device("meta"):
        model = build()
        try:
            reshape_(model, compression, folder)
        except RuntimeError as error:  # more numbers than 64 bits count
            reason = library_text(error, 300)
            raise SourceError(f"{folder / COMPRESSION_FILE}: {reason}") from error
    check_weights(model, weights, folder)
    model = build()
    reshape_(model, compression, folder)
    load_weights_(model, weights, folder)
    model.train(False)
    return model


def _check_layers(config: PreTrainedConfig, tensors: int, path: Path) -> None:
    """Raises SourceError where a model has more layers than its weights have tensors."""
    for section in ("", "text_config", "vision_config"):
        part = getattr(config, section, None) if section else config
        for name in ("num_hidden_layers", "depths"):
            value = getattr(part, name, None)
            numbers = [n for n in (value if isinstance(value, list) else [value]) if isinstance(n, int)]
            if sum(numbers) > tensors:
                key = f"{section}.{name}".removeprefix(".")
                raise SourceError(
                    f"{path}: {key} is {quoted(value)}, and the weights are {tensors} tensors in all; "
                    "config.json describes another model"
                )


def check_vocabulary(tokenizer: TokenizerFile, size: int, folder: Path) -> None:
    """Raises SourceError where the tokenizer knows ids that a model's `size` tokens do not hold."""
    if tokenizer.highest_id >= size:
        raise SourceError(
            f"{folder}: tokenizer.json has ids up to {tokenizer.highest_id}, but config.json's vocab_size is "
            f"{size}"
        )


def text_length(tokenizer: TokenizerFile, positions: int, folder: Path) -> int:
    """T, the smaller of the tokenizer's limit and a model's positions.

    Raises:
        SourceError: it leaves no room for a word.
    """
    length = positions if tokenizer.limit is None else min(positions, tokenizer.limit)
    if length < _LEAST_LENGTH:
        raise SourceError(
            f"{folder}: texts of {length} tokens leave no room for a word; "
            f"at least {_LEAST_LENGTH} are needed"
        )
    return length
