"""The one forward of a component has the gradients of transformers' own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import CLIPModel, ViltForQuestionAnswering, VisionTextDualEncoderModel

from pocketvl.families import open_checkpoint
from pocketvl.families.checkpoint import Checkpoint
from pocketvl_runtime.manifest import Normalization
from tests.families.tiny import make_tiny_clip
from tests.families.tiny_dual import make_tiny_dual
from tests.families.vilt_folder import make_vilt_folder, vilt_inputs

Inputs = Mapping[str, torch.Tensor]


def _normalized(pixels: torch.Tensor, spec: Normalization) -> torch.Tensor:
    values = pixels.permute(0, 3, 1, 2) * spec.rescale
    values = values - torch.tensor(spec.mean).view(3, 1, 1)
    return values / torch.tensor(spec.std).view(3, 1, 1)


def _unit(values: torch.Tensor) -> torch.Tensor:
    return nn.functional.normalize(values, dim=-1)


def _image(model: nn.Module, checkpoint: Checkpoint, inputs: Inputs) -> torch.Tensor:
    assert isinstance(model, CLIPModel | VisionTextDualEncoderModel)
    values = _normalized(inputs["pixels"], checkpoint.preprocess.normalized_in_graph)
    return _unit(model.get_image_features(pixel_values=values).pooler_output)


def _text(model: nn.Module, checkpoint: Checkpoint, inputs: Inputs) -> torch.Tensor:
    ids = inputs["ids"].long()
    if isinstance(model, CLIPModel):
        return _unit(model.get_text_features(input_ids=ids).pooler_output)
    assert isinstance(model, VisionTextDualEncoderModel)
    mask = (ids != checkpoint.tokenizer.pad_id).long()
    return _unit(model.get_text_features(ids, attention_mask=mask).pooler_output)


def _answers(model: nn.Module, checkpoint: Checkpoint, inputs: Inputs) -> torch.Tensor:
    assert isinstance(model, ViltForQuestionAnswering)
    pixels, ids = inputs["pixels"], inputs["ids"]
    found: torch.Tensor = model(
        input_ids=ids.long(),
        attention_mask=(ids != checkpoint.tokenizer.pad_id).long(),
        pixel_values=_normalized(pixels, checkpoint.preprocess.normalized_in_graph),
        pixel_mask=torch.ones(pixels.shape[:3], dtype=torch.long),
    ).logits
    return found


def _inputs(checkpoint: Checkpoint, name: str) -> Inputs:
    """A few inputs of a component, texts of different lengths among them."""
    if name == "fusion":
        return dict(zip(("pixels", "ids"), vilt_inputs(), strict=True))
    generator = torch.Generator().manual_seed(0)
    (port,) = checkpoint.component(name).inputs
    shape = (4, *(int(size) for size in port.shape[1:]))
    values = torch.randint(4, 200, shape, generator=generator)
    if name == "text_encoder":
        for row, end in enumerate((5, 9, 12)):
            values[row, end:] = checkpoint.tokenizer.pad_id
        values[3, -1] = checkpoint.tokenizer.pad_id
    return {port.name: values.to(getattr(torch, port.dtype.value))}


@pytest.mark.parametrize(
    ("make", "kind", "name", "theirs"),
    [
        (make_tiny_clip, CLIPModel, "image_encoder", _image),
        (make_tiny_clip, CLIPModel, "text_encoder", _text),
        (make_tiny_dual, VisionTextDualEncoderModel, "image_encoder", _image),
        (make_tiny_dual, VisionTextDualEncoderModel, "text_encoder", _text),
        (make_vilt_folder, ViltForQuestionAnswering, "fusion", _answers),
    ],
)
def test_answers_and_gradients_are_those_of_transformers(
    make: Callable[[Path], Path],
    kind: type[CLIPModel | VisionTextDualEncoderModel | ViltForQuestionAnswering],
    name: str,
    theirs: Callable[[nn.Module, Checkpoint, Inputs], torch.Tensor],
    tmp_path: Path,
) -> None:
    folder = make(tmp_path / "tiny")
    checkpoint, model = open_checkpoint(folder), kind.from_pretrained(folder, dtype=torch.float32)
    checkpoint.model.train(True)
    model.train(True)
    inputs = _inputs(checkpoint, name)
    found = checkpoint.component(name).module(*inputs.values())
    wanted = theirs(model, checkpoint, inputs)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    for answers in (found, wanted):
        (answers * weights).sum().backward()
    mine = {name: value.grad for name, value in checkpoint.model.named_parameters() if value.grad is not None}
    other = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    assert len(mine) > 20
    assert set(mine) == set(other)
    for parameter, gradient in mine.items():
        limit = 1e-4 * max(float(other[parameter].abs().max()), 1e-2)
        torch.testing.assert_close(gradient, other[parameter], atol=limit, rtol=0, msg=parameter)
