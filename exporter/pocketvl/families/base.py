"""The interface of a family: its contract, and its components as modules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from pocketvl.errors import RecipeError, SourceError
from pocketvl.families.folders.files import CONFIG_FILE
from pocketvl.families.folders.weights import SAFETENSORS
from pocketvl.network.heads import ContrastiveHead, EmbeddingHead, Head, HeadKind, LabelHead, MatchHead
from pocketvl.network.ports import ComponentPorts, Port
from pocketvl.network.tolerances import DEFAULT_PARITY, ParityLimits
from pocketvl_runtime.manifest import AudioProcessor, ImageProcessor, Modality, Precision, TextProcessor

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pocketvl.families.checkpoint import Checkpoint
    from pocketvl.families.component_shape import ComponentShape
    from pocketvl.families.layers.segments import Segments

MediaProcessor: TypeAlias = ImageProcessor | AudioProcessor
Processor: TypeAlias = MediaProcessor | TextProcessor
IMAGE, AUDIO, TEXT = "image", "audio", "text"
"""Names of processors."""


@dataclass(frozen=True)
class LayerStack:
    """The transformer layers of a component.

    Attributes:
        name: of the model's ModuleList.
        config: where in config.json their number stands: section, or "" for none, and key.
        width: of the hidden states.
        segments: of the sequence, where it is made of several.
    """

    name: str
    config: tuple[str, str]
    width: int
    segments: Segments | None = None


@dataclass(frozen=True, eq=False)
class Component:
    """A part of a model that becomes one graph.

    Attributes:
        name: "image_encoder".
        module: THE forward, for training, calibration and export, in plain ops; its parameters are named as
            in the model.
        inputs: in the order of the forward's arguments.
        outputs: what it returns.
        stacks: its transformer layers, if it has any.
        unquantized: names of the module's layers that no precision quantizes: they carry the residual stream.
        dynamic: names of those that are dynamic where others are static: they read one vector a sample, and
            an activation that engines fuse with them would leave one of two grids.
    """

    name: str
    module: nn.Module
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    stacks: tuple[LayerStack, ...] = ()
    unquantized: tuple[str, ...] = ()
    dynamic: tuple[str, ...] = ()


def example_inputs(component: Component | ComponentPorts) -> tuple[torch.Tensor, ...]:
    """A component's inputs for a batch of 1, all zeros."""
    import torch

    def example(port: Port) -> torch.Tensor:
        shape = tuple(size if isinstance(size, int) else 1 for size in port.shape)
        return torch.zeros(shape, dtype=getattr(torch, port.dtype.value))

    return tuple(example(port) for port in component.inputs)


@dataclass(frozen=True, eq=False)
class Contract:
    """Inputs, outputs and head of a checkpoint; read without its weights.

    Attributes:
        family: the family's name, "clip".
        name: of the folder.
        folder: where it was read.
        processors: by their names, "image" or "audio" and "text", how pictures or sounds and texts become
            what components take; an encoder by itself has one of them.
        tokenizer_json: the content of tokenizer.json, byte for byte, where that is no more than devices read;
            empty where no component reads texts.
        components: their ports, by name.
        head: how they answer.
        reranker: a second head, by a component of its own, that reranks what the first finds; None: there is
            none.
        identity: what outputs depend on and neither tensors nor processors tell.
        notes: what the user should know about how the folder was read, one sentence each.
    """

    family: str
    name: str
    folder: Path
    processors: Mapping[str, Processor]
    tokenizer_json: bytes
    components: Mapping[str, ComponentPorts]
    head: Head
    reranker: MatchHead | None = None
    identity: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def contrastive_head(self) -> ContrastiveHead:
        """The head of a model that embeds pictures and texts.

        Raises:
            SourceError: it has none.
        """
        if not isinstance(self.head, ContrastiveHead):
            raise SourceError(f"{self.folder} is no model that embeds pictures or sounds and texts")
        return self.head

    @property
    def label_head(self) -> LabelHead:
        """The head of a model that answers questions.

        Raises:
            SourceError: it has none.
        """
        if not isinstance(self.head, LabelHead):
            raise SourceError(f"{self.folder} is no model that answers questions")
        return self.head

    @property
    def modality(self) -> Modality:
        """What the model takes beside texts, if anything; the processor of it has its name."""
        return Modality.AUDIO if AUDIO in self.processors else Modality.IMAGE

    @property
    def media(self) -> MediaProcessor:
        """How a picture becomes uint8 pixels, or a sound a float32 spectrogram."""
        found = self.processors[self.modality.value]
        assert not isinstance(found, TextProcessor)
        return found

    @property
    def embedding_head(self) -> EmbeddingHead:
        """The head of an encoder by itself.

        Raises:
            SourceError: it is none.
        """
        if not isinstance(self.head, EmbeddingHead):
            raise SourceError(f"{self.folder} is no encoder by itself")
        return self.head

    @property
    def senses(self) -> bool:
        """Whether any component takes pictures or sounds."""
        return self.modality.value in self.processors

    @property
    def reads(self) -> bool:
        """Whether any component takes texts."""
        return TEXT in self.processors

    @property
    def preprocess(self) -> ImageProcessor:
        """How a picture becomes uint8 pixels, of a model that takes pictures."""
        found = self.media
        assert isinstance(found, ImageProcessor)
        return found

    @property
    def tokenizer(self) -> TextProcessor:
        """How a text becomes int32 ids."""
        found = self.processors[TEXT]
        assert isinstance(found, TextProcessor)
        return found


class Architecture(ABC):
    """The interface that a family's file implements.

    Attributes:
        config_file: which file of a folder describes the model.
        weights_file: under which name weights are saved.
    """

    config_file: ClassVar[str] = CONFIG_FILE
    weights_file: ClassVar[str] = SAFETENSORS

    @abstractmethod
    def contract(self, folder: Path) -> Contract:
        """Read and check everything in a folder but its weights.

        Raises:
            SourceError: something in the folder is missing, broken, or does not fit the rest.
        """

    @abstractmethod
    def parse(self, stored: dict[str, Any], folder: Path) -> Any:
        """Read and check the content of `config_file`.

        Args:
            stored: the content.
            folder: for messages.

        Returns:
            transformers' configuration, or what the family has in its place.

        Raises:
            SourceError: it describes no model of the family.
        """

    @abstractmethod
    def build(self, config: Any, folder: Path, initialised: bool = False) -> nn.Module:
        """transformers' own model, or what the family makes of its layers, fp32.

        A part of a model has in it the names that it has in the whole.

        Args:
            config: as `parse` gives it.
            folder: for messages.
            initialised: whether weights are random, of torch's present state; else they are uninitialised.

        Raises:
            SourceError: there is no such model.
        """

    @abstractmethod
    def components(self, model: nn.Module, contract: Contract) -> tuple[Component, ...]:
        """The components of a model, which share its modules and their names.

        Args:
            model: as `build` makes it, perhaps compressed since.
            contract: of its folder.
        """

    def unpack_(self, weights: dict[str, torch.Tensor], config: Any) -> None:  # noqa: B027
        """Change, in place, a folder's tensors into those of the model that `build` makes; most are.

        What is missing or of a wrong shape is left as it is: it is found when the two are compared.

        Args:
            weights: of the folder, by their names there.
            config: as `parse` gives it.
        """

    def pack_(self, weights: dict[str, torch.Tensor], config: dict[str, Any]) -> None:  # noqa: B027
        """Change, in place, a model's tensors into those of a folder, and what config.json says of them.

        Args:
            weights: of the model, by their names there.
            config: the content of `config_file`.
        """

    def shorten_texts_(  # noqa: B027
        self, model: nn.Module, config: dict[str, Any], length: int
    ) -> None:
        """Shorten texts in a model and the content of `config_file`, where these say how long texts are.

        Args:
            model: as `build` makes it; changed in place.
            config: changed in place.
            length: tokens of a text.
        """

    def save_length(self, out: Path, length: int) -> None:
        """Write into a saved folder how long texts are, in tokens, where `config_file` does not say it."""
        from pocketvl.families.folders.trimmed import write_length

        write_length(out, length)

    def trim_config_(self, config: dict[str, Any], folder: Path, new_ids: Mapping[int, int]) -> int:
        """Write into the content of `config_file` that a tokenizer has fewer tokens.

        Args:
            config: changed in place.
            folder: for messages.
            new_ids: by the ids before.

        Returns:
            How many tokens there were.
        """
        from pocketvl.families.folders.trimmed import trim_config_

        return trim_config_(config, self.parse(config, folder), new_ids)

    def is_reshapable(self, config: dict[str, Any], folder: Path) -> bool:
        """Whether `reshape_config_` can do anything with a model of this configuration."""
        return type(self).reshape_config_ is not Architecture.reshape_config_

    def reshape_config_(self, config: dict[str, Any], shapes: Mapping[str, ComponentShape]) -> None:
        """Write other shapes of components into the content of `config_file`.

        Raises:
            RecipeError: the family has no components of such shapes.
        """
        raise RecipeError("models of this family cannot be reinitialised in other shapes")


@dataclass(frozen=True)
class Family:
    """A family, as known before torch is imported.

    Attributes:
        name: its name.
        model_types: values of config.json's model_type that it answers to.
        module: with its `ARCHITECTURE`.
        components: names of the components that its checkpoints have.
        head: the kind of its checkpoints' head.
        reranker: the component of a second head, which reranks; None: they have none.
        modality: what its checkpoints take beside texts.
        tolerances: how far a lowered component's outputs may be from torch's, by precision; the gate, the
            tests and docs all take them from here.
    """

    name: str
    model_types: tuple[str, ...]
    module: str
    components: tuple[str, ...]
    head: HeadKind
    modality: Modality = Modality.IMAGE
    reranker: str | None = None
    tolerances: Mapping[Precision, ParityLimits] = field(default_factory=lambda: DEFAULT_PARITY)

    @property
    def trained(self) -> tuple[str, ...]:
        """The components of the first head, which is the one that trainings know."""
        return tuple(name for name in self.components if name != self.reranker)

    def architecture(self) -> Architecture:
        """Imports the family's file."""
        found = import_module(self.module).ARCHITECTURE
        assert isinstance(found, Architecture)
        return found

    def contract(self, folder: Path) -> Contract:
        """Read a folder's contract, without its weights.

        Raises:
            SourceError: something in the folder is missing, broken, or does not fit the rest.
        """
        from pocketvl.families.folders.hf import custom_code_notes
        from pocketvl.families.folders.hub import folder_name

        found = self.architecture().contract(folder)
        notes = (*found.notes, *custom_code_notes(folder))
        return replace(found, name=folder_name(folder), notes=notes)

    def open(self, folder: Path) -> Checkpoint:
        """Open a folder; its weights are read once.

        Raises:
            SourceError: something in the folder is missing, broken, or does not fit the rest.
        """
        from pocketvl.families.checkpoint import open_checkpoint

        return open_checkpoint(self.architecture(), self.contract(folder))

    def check(self, folder: Path) -> None:
        """Compare the names and shapes of a folder's tensors with the model of its config.json.

        Raises:
            SourceError: something is missing, broken, or does not fit the rest.
        """
        from pocketvl.families.checkpoint import check_checkpoint

        check_checkpoint(self.architecture(), folder)
