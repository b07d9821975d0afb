"""An opened checkpoint: a family's model, and its components, to be run, changed and saved again."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from pocketvl.errors import RecipeError, SourceError
from pocketvl.families.base import TEXT, Architecture, Component, Contract, LayerStack
from pocketvl.families.component_shape import ComponentShape
from pocketvl.families.folders.files import IMAGE_FILES, PROCESSOR_FILES
from pocketvl.families.folders.hf import read_json
from pocketvl.families.folders.models import check_layers, check_model, load_model
from pocketvl.families.folders.tokenizer import LEAST_LENGTH
from pocketvl.families.folders.trimmed import write_tokenizer
from pocketvl.families.folders.weights import (
    describe_weights,
    read_weights,
    scalar_value,
    weight_files,
    weight_notes,
)
from pocketvl.families.layers.compression import compression_of, read_compression, reshape_
from pocketvl.network.heads import ContrastiveHead, FixedScalar, Scalar, StoredScalar, stored_scalars
from pocketvl.network.ports import Port, PortKind
from pocketvl_runtime.manifest import ImageProcessor, TextProcessor


@dataclass(eq=False)
class Checkpoint:
    """An opened checkpoint.

    Attributes:
        architecture: of its family.
        contract: what it takes and gives.
        model: as the family builds it, fp32, in eval mode, on the CPU; changed in place.
        config: the content of config.json, or open_clip_config.json; changed with the model where it says
            what has changed.
        dtype: in which weights are stored.
        is_trimmed: whether its tokenizer is another than the folder's.
        is_shortened: whether it cuts texts earlier than the folder's.
        dropped: components of its family that are no part of it any more.
    """

    architecture: Architecture
    contract: Contract
    model: nn.Module
    config: dict[str, Any]
    dtype: torch.dtype
    is_trimmed: bool = False
    is_shortened: bool = False
    dropped: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where it was loaded from."""
        return self.contract.folder

    @property
    def components(self) -> Mapping[str, Component]:
        """The components by name, of the model as it is now; they share its modules, and their names."""
        found = {each.name: each for each in self.architecture.components(self.model, self.contract)}
        for component in found.values():
            component.module.train(self.model.training)
        return found

    def component(self, name: str) -> Component:
        """One of the components.

        Raises:
            RecipeError: there is none of this name.
        """
        found = self.components
        if name not in found:
            raise RecipeError(f"{self.folder} has no component {name!r}, only {', '.join(found)}")
        return found[name]

    def original(self) -> nn.Module:
        """A model as config.json describes it, without memory for its weights."""
        with torch.device("meta"):
            return self._build()

    def reinitialize_(self, shapes: Mapping[str, ComponentShape], seed: int) -> None:
        """Replace the components by randomly initialised ones of other shapes.

        What a head stores among the weights stays as it is.

        Args:
            shapes: of every component.
            seed: of the weights.

        Raises:
            RecipeError: the family has no components of such shapes.
        """
        self.architecture.reshape_config_(self.config, shapes)
        kept = {each.tensor: self.model.get_parameter(each.tensor) for each in self._scalars}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = self._build(initialised=True)
        with torch.no_grad():
            for name, value in kept.items():
                self.model.get_parameter(name).copy_(value)
        self.model.train(False)

    def trim_vocabulary_(self, tokenizer_json: bytes, kept: Sequence[int], tables: Sequence[str]) -> int:
        """Keep the rows of some tokens alone.

        Args:
            tokenizer_json: of a tokenizer with these tokens alone.
            kept: of each new id the id before, ascending.
            tables: names of the tables of token embeddings.

        Returns:
            How many rows there were.

        Raises:
            RecipeError: a table is not of the size that the configuration says.
        """
        new_ids = {before: now for now, before in enumerate(kept)}
        size = self.architecture.trim_config_(self.config, self.folder, new_ids)
        if not tables or any(self._table(name).num_embeddings != size for name in tables):
            raise RecipeError(f"{self.folder} has no table of {size:,} token embeddings")
        for name in tables:
            table = self._table(name)
            rows = table.weight.detach()[torch.tensor(kept)].clone()
            padding = None if table.padding_idx is None else new_ids.get(table.padding_idx)
            trimmed = nn.Embedding(len(rows), rows.shape[1], padding, _weight=rows)
            self.model.set_submodule(name, trimmed.train(table.training))
        pad = self.contract.tokenizer.pad
        text = replace(self.contract.tokenizer, pad=replace(pad, id=new_ids[pad.id]))
        processors = {**self.contract.processors, TEXT: text}
        self.contract = replace(self.contract, tokenizer_json=tokenizer_json, processors=processors)
        self.is_trimmed = True
        return size

    def shorten_texts_(self, length: int) -> None:
        """Cut texts after fewer tokens than before.

        Raises:
            RecipeError: they are no fewer, or leave no room for a word.
        """
        before = self.tokenizer
        if not LEAST_LENGTH <= length < before.max_length:
            raise RecipeError(
                f"texts cannot be shortened to {length} tokens: at least {LEAST_LENGTH} are needed, and now "
                f"there are {before.max_length}"
            )
        self.architecture.shorten_texts_(self.model, self.config, length)
        processors = {**self.contract.processors, TEXT: replace(before, max_length=length)}
        components = {
            name: replace(ports, inputs=tuple(_shortened(port, length) for port in ports.inputs))
            for name, ports in self.contract.components.items()
        }
        self.contract = replace(self.contract, processors=processors, components=components)
        self.is_shortened = True

    def drop_reranker_(self) -> None:
        """Leave out the component of the second head, and what it alone reads of another.

        Raises:
            RecipeError: there is no second head.
        """
        reranker = self.contract.reranker
        if reranker is None:
            raise RecipeError(f"{self.folder} has no second head")
        before, _, hidden = reranker.hidden.partition(".")
        kept = {name: each for name, each in self.contract.components.items() if name != reranker.component}
        outputs = tuple(port for port in kept[before].outputs if port.name != hidden)
        kept[before] = replace(kept[before], outputs=outputs)
        self.contract = replace(self.contract, components=kept, reranker=None)
        self.dropped = (*self.dropped, reranker.component)

    def _table(self, name: str) -> nn.Embedding:
        table = self.model.get_submodule(name)
        assert isinstance(table, nn.Embedding)
        return table

    def space(self) -> str:
        """ "sha256:..." of everything that outputs depend on: equal where embeddings are comparable.

        A head's scale and bias are not among it.
        """
        contract = self.contract
        specs: dict[str, object] = {"preprocess": asdict(contract.media)} if contract.senses else {}
        if contract.reads:
            specs["tokenizer"] = asdict(contract.tokenizer)
        digest = hashlib.sha256(json.dumps({**contract.identity, **specs}, sort_keys=True).encode())
        digest.update(hashlib.sha256(contract.tokenizer_json).digest())
        scalars = {each.tensor for each in self._scalars}
        for name, tensor in sorted(self.model.state_dict().items()):
            if name not in scalars:
                digest.update(f"{name}{list(tensor.shape)}".encode())
                digest.update(tensor.contiguous().numpy())
        return f"sha256:{digest.hexdigest()}"

    def save(self, out: Path) -> None:
        """Write the checkpoint folder `out`: weights, configuration, what differs from it, tokenizer.

        Raises:
            SourceError: a weight is not finite.
        """
        out.mkdir(parents=True, exist_ok=True)
        state = {
            name: (value.detach().to(self.dtype) if value.is_floating_point() else value).contiguous()
            for name, value in self.model.state_dict().items()
        }
        for name, value in state.items():
            if not bool(torch.isfinite(value).all()):
                raise SourceError(f"{name} holds values that {str(self.dtype).removeprefix('torch.')} cannot")
        self.architecture.pack_(state, self.config)
        save_file(state, out / self.architecture.weights_file, {"format": "pt"})
        described = out / self.architecture.config_file
        described.write_text(json.dumps(self.config, indent=2) + "\n", encoding="utf-8")
        replace(compression_of(self.model, self.original()), dropped=self.dropped).save(out)
        for name in IMAGE_FILES if self.is_trimmed else PROCESSOR_FILES:
            if (self.folder / name).exists():
                shutil.copyfile(self.folder / name, out / name)
        if self.is_trimmed:
            write_tokenizer(out, self.folder, self.tokenizer_json, self.tokenizer)
        elif self.is_shortened:
            self.architecture.save_length(out, self.tokenizer.max_length)

    @property
    def _scalars(self) -> tuple[StoredScalar, ...]:
        return stored_scalars(self.contract.head)

    def _build(self, initialised: bool = False) -> nn.Module:
        config = self.architecture.parse(self.config, self.folder)
        return self.architecture.build(config, self.folder, initialised)

    # Shorthands

    @property
    def stacks(self) -> Mapping[str, LayerStack]:
        """The layers of each component that has a stack of them."""
        return {name: each.stacks[0] for name, each in self.components.items() if each.stacks}

    def stack(self, name: str) -> LayerStack:
        """The layers of a component.

        Raises:
            RecipeError: it is no stack of transformer layers.
        """
        found = self.stacks
        if name not in found:
            raise RecipeError(
                f"the {name} is no stack of transformer layers, and this is for such components only: "
                f"{', '.join(found)}"
            )
        return found[name]

    def layer_count(self, stack: LayerStack) -> int:
        """How many layers a stack of a component has now."""
        return sum(1 for _ in self.model.get_submodule(stack.name).children())

    @property
    def preprocess(self) -> ImageProcessor:
        """How a picture becomes pixels."""
        return self.contract.preprocess

    @property
    def tokenizer(self) -> TextProcessor:
        """How a text becomes ids."""
        return self.contract.tokenizer

    @property
    def tokenizer_json(self) -> bytes:
        """The content of tokenizer.json."""
        return self.contract.tokenizer_json

    @property
    def logit_scale(self) -> float:
        """The scale of cosines before their activation; 1 for heads without one.

        Raises:
            SourceError: what is stored is not the logarithm of anything sensible.
        """
        head = self.contract.head
        if not isinstance(head, ContrastiveHead):
            return 1.0
        return self.scalar(head.scale)

    def scalar(self, stored: Scalar) -> float:
        """A number of a head, fixed or stored among the weights.

        Raises:
            SourceError: it is not one number, or not the logarithm of anything sensible.
        """
        if isinstance(stored, FixedScalar):
            return stored.value
        return scalar_value(stored, self.model.get_parameter(stored.tensor), self.folder)

    @property
    def embedding_dim(self) -> int:
        """The length of an embedding; 0 where there is none."""
        ports = [port for each in self.contract.components.values() for port in each.outputs]
        sizes = [port.shape[-1] for port in ports if port.kind is PortKind.EMBEDDING]
        return int(sizes[0]) if sizes else 0


def _shortened(port: Port, length: int) -> Port:
    """A port with texts of so many tokens."""
    is_text = port.kind in (PortKind.TOKEN_IDS, PortKind.ATTENTION_MASK)
    return replace(port, shape=(*port.shape[:-1], length)) if is_text else port


def open_checkpoint(architecture: Architecture, contract: Contract) -> Checkpoint:
    """Open a folder of a family; its weights are read once.

    Args:
        architecture: of the family.
        contract: of the folder.

    Raises:
        SourceError: something in the folder is missing, broken, or does not fit the rest.
    """
    folder = contract.folder
    path = folder / architecture.config_file
    stored = read_json(path)
    config, weights = architecture.parse(stored, folder), read_weights(folder)
    architecture.unpack_(weights, config)
    check_layers(config, len(weights), path)
    compression = read_compression(folder)
    model = load_model(lambda: architecture.build(config, folder), weights, compression, folder)
    dtypes = Counter(tensor.dtype for tensor in weights.values() if tensor.is_floating_point())
    dtype = dtypes.most_common(1)[0][0]
    notes = (*contract.notes, *weight_notes(weight_files(folder), dtype))
    contract = replace(contract, notes=notes)
    opened = Checkpoint(architecture, contract, model, stored, dtype, dropped=compression.dropped)
    for scalar in stored_scalars(contract.head):
        opened.scalar(scalar)  # says what is wrong with it
    return opened


def check_checkpoint(architecture: Architecture, folder: Path) -> None:
    """Compare the names and shapes of a folder's tensors with the model of its config.json; reads no values.

    Raises:
        SourceError: something is missing, broken, or does not fit the rest.
    """
    path = folder / architecture.config_file
    config = architecture.parse(read_json(path), folder)
    weights = describe_weights(folder)
    architecture.unpack_(weights, config)
    check_layers(config, len(weights), path)
    check_model(lambda: architecture.build(config, folder), weights, read_compression(folder), folder)


def parameter_counts(architecture: Architecture, contract: Contract) -> dict[str, dict[str, int]]:
    """How many numbers each parameter of each component has, by a model that takes no memory.

    Raises:
        SourceError: the folder describes no such model.
    """
    folder = contract.folder
    config = architecture.parse(read_json(folder / architecture.config_file), folder)
    with torch.device("meta"):
        model = architecture.build(config, folder)
        reshape_(model, read_compression(folder), folder)
        components = architecture.components(model, contract)
    return {
        each.name: {name: value.numel() for name, value in each.module.named_parameters()}
        for each in components
    }


def uninitialised(architecture: Architecture, contract: Contract, name: str) -> Component:
    """A component as its folder describes it, in eval mode, with weights that are yet to be loaded.

    Raises:
        SourceError: the folder describes no such model.
    """
    folder = contract.folder
    config = architecture.parse(read_json(folder / architecture.config_file), folder)
    model = architecture.build(config, folder)
    reshape_(model, read_compression(folder), folder)
    model.requires_grad_(False).train(False)
    found = {each.name: each for each in architecture.components(model, contract)}[name]
    found.module.train(False)
    return found
