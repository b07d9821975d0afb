"""ViLT: a single-stream encoder over text and image tokens that answers questions.

Source: Kim, Son and Kim, 2021, "ViLT: Vision-and-Language Transformer Without Convolution or Region
Supervision", arXiv 2102.03334; weights and configuration as transformers' `ViltForQuestionAnswering` stores
them. Pictures are of one fixed size here, where ViLT's own processor keeps their aspect ratio.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from pocketvl.errors import SourceError
from pocketvl.families.base import IMAGE, TEXT, Architecture, Component, Contract, LayerStack
from pocketvl.families.folders.files import COMPRESSION_FILE, CONFIG_FILE
from pocketvl.families.folders.hf import read_json
from pocketvl.families.folders.image_processor import read_preprocess
from pocketvl.families.folders.models import build_from, check_channels, check_sizes, parse_config
from pocketvl.families.folders.tokenizer import TokenizerFile, check_vocabulary, read_tokenizer, text_length
from pocketvl.families.layers.compression import read_compression
from pocketvl.families.layers.plain import MASKED, NormalizePixels
from pocketvl.families.layers.prefix import MasksPadding
from pocketvl.families.layers.segments import Segments
from pocketvl.families.ports import ids_port, pixel_port
from pocketvl.network.heads import LabelHead
from pocketvl.network.ports import ComponentPorts, DType, Port, PortKind
from pocketvl_runtime.errors import quoted
from pocketvl_runtime.manifest import ImageProcessor, Padding, TextProcessor

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, ViltConfig, ViltForQuestionAnswering

FUSION = "fusion"


class ViltFusion(nn.Module, MasksPadding):
    """uint8 [B, H, W, 3] and int ids [B, T] -> logits of the answers, float32 [B, answers].

    The picture's patches come in their own order, all of them; transformers draws a random one, which changes
    nothing but the order of sums.
    """

    def __init__(self, model: ViltForQuestionAnswering, preprocess: ImageProcessor, pad_id: int) -> None:
        """Args: model: shares its modules. preprocess: whose rescale, mean and std are applied. pad_id: the
        padding token, which is not attended to."""
        super().__init__()
        self.vilt, self.classifier = model.vilt, model.classifier
        self.pad_id = pad_id
        self.normalize: nn.Module = NormalizePixels(preprocess)

    def forward(self, pixels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Answer a batch of questions, each about its own picture."""
        hidden, mask = self.embed(pixels, ids)
        for layer in self.layers:
            hidden = layer(hidden, mask)[0]
        return self.answer(hidden)

    @property
    def layers(self) -> nn.ModuleList:
        """The transformer layers: (hidden states, mask) -> a tuple with hidden states first."""
        return self.vilt.encoder.layer

    def embed(self, pixels: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The first layer's inputs: states float [B, T + 1 + patches, width], and the additive mask."""
        embeddings = self.vilt.embeddings
        patches = embeddings.patch_embeddings.projection(self.normalize(pixels)).flatten(2).transpose(1, 2)
        first = embeddings.cls_token.expand(len(pixels), -1, -1)
        kinds = embeddings.token_type_embeddings.weight
        text = embeddings.text_embeddings(input_ids=ids) + kinds[0]
        image = torch.cat([first, patches], dim=1) + embeddings.position_embeddings
        if self.training:
            image = embeddings.dropout(image)
        image = image + kinds[1]
        padding = (ids == self.pad_id).to(text.dtype) * MASKED
        mask = torch.cat([padding, padding.new_zeros(image.shape[:2])], dim=1)[:, None, None]
        return torch.cat([text, image], dim=1), mask

    def answer(self, hidden: torch.Tensor) -> torch.Tensor:
        """The logits from the last layer's hidden states, pooled at the first token."""
        pooler = cast("nn.Module", self.vilt.pooler)
        pooled = pooler(self.vilt.layernorm(hidden[:, :1]))
        logits: torch.Tensor = self.classifier(pooled)
        return logits if logits.dtype == torch.float32 else logits.float()


class ViltArchitecture(Architecture):
    """ViltForQuestionAnswering."""

    def contract(self, folder: Path) -> Contract:
        stored = read_json(folder / CONFIG_FILE)
        config = self.parse(stored, folder)
        answers = _answers(stored, folder)
        preprocess, notes = read_preprocess(folder, cast(int, config.image_size))
        tokenizer = read_tokenizer(folder)
        spec = TextProcessor(_text_length(folder, tokenizer, config), Padding(tokenizer.pad_id))
        _check_segments(folder, segments_of(config, spec.max_length))
        logits = Port("logits", DType.FLOAT32, (1, len(answers)), PortKind.CLASS_LOGITS)
        return Contract(
            family="vilt",
            name=folder.resolve().name,
            folder=folder,
            processors={IMAGE: preprocess, TEXT: spec},
            tokenizer_json=tokenizer.content,
            components={FUSION: ComponentPorts((pixel_port(preprocess), ids_port(spec)), (logits,))},
            head=LabelHead(FUSION, answers),
            identity={"fusion": [config.num_attention_heads, config.hidden_act, config.layer_norm_eps]},
            notes=notes,
        )

    def parse(self, stored: dict[str, Any], folder: Path) -> ViltConfig:
        from transformers import ViltConfig

        path = folder / CONFIG_FILE
        config = parse_config(ViltConfig, stored, path, "ViLT")
        check_sizes({name: getattr(config, name) for name in ("image_size", "patch_size")}, path)
        check_channels(config.num_channels, "num_channels", path)
        if 0 < config.max_image_length < _patch_count(config):
            raise SourceError(
                f"{path}: max_image_length is {config.max_image_length}, fewer than the "
                f"{_patch_count(config)} patches of a picture, all of which are read here"
            )
        return config

    def build(self, config: PreTrainedConfig, folder: Path, initialised: bool = False) -> PreTrainedModel:
        from transformers import ViltForQuestionAnswering

        return build_from(ViltForQuestionAnswering, config, folder, "ViLT", initialised=initialised)

    def components(self, model: nn.Module, contract: Contract) -> tuple[Component, ...]:
        vilt, ports = cast("ViltForQuestionAnswering", model), contract.components[FUSION]
        tokenizer = contract.tokenizer
        stack = LayerStack(
            "vilt.encoder.layer",
            ("", "num_hidden_layers"),
            vilt.config.hidden_size,
            segments_of(vilt.config, tokenizer.max_length),
        )
        module = ViltFusion(vilt, contract.preprocess, tokenizer.pad_id)
        return (Component(FUSION, module, ports.inputs, ports.outputs, (stack,)),)


ARCHITECTURE = ViltArchitecture()


def segments_of(config: ViltConfig, text_length: int) -> Segments:
    """The parts of the sequence: text, then one token of the picture as a whole and its patches.

    Args:
        config: of the model.
        text_length: tokens of a question, padding included.
    """
    return Segments({"text": text_length, "image": 1 + _patch_count(config)})


def _patch_count(config: ViltConfig) -> int:
    side = cast(int, config.image_size) // cast(int, config.patch_size)
    return side * side


def _check_segments(folder: Path, segments: Segments) -> None:
    """Raise SourceError where compression.json splits attentions by other segments."""
    compression = read_compression(folder)
    found, wanted = dict(compression.segments), dict(segments.lengths)
    if compression.removed and list(found.items()) != list(wanted.items()):
        raise SourceError(
            f"{folder / COMPRESSION_FILE}: segments are {quoted(found)}, and of this model {wanted}"
        )


def _text_length(folder: Path, tokenizer: TokenizerFile, config: ViltConfig) -> int:
    check_vocabulary(tokenizer, config.vocab_size, folder)
    if tokenizer.pad_id == tokenizer.eos_id:
        raise SourceError(f"{folder}: texts end with the very id {tokenizer.pad_id} that fills them up")
    return text_length(tokenizer, config.max_position_embeddings, folder)


def _answers(stored: dict[str, Any], folder: Path) -> tuple[str, ...]:
    labels = stored.get("id2label")
    path = folder / "config.json"
    if not isinstance(labels, dict) or len(labels) < 2:
        raise SourceError(f"{path}: id2label has to name two answers or more")
    if set(labels) != {str(index) for index in range(len(labels))}:
        raise SourceError(f"{path}: id2label has to name the answers 0 to {len(labels) - 1}")
    found = tuple(str(labels[str(index)]) for index in range(len(labels)))
    if len(set(found)) != len(found):
        raise SourceError(f"{path}: id2label names an answer twice")
    return found
