"""What the conformance suite needs of a model_type: a tiny folder, and what transformers makes of inputs.

A new family is one more entry of `CASES`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pocketvl.families.base import Contract
from tests.families.tiny import make_tiny_clip
from tests.families.tiny_blip import make_tiny_blip
from tests.families.tiny_chinese import make_tiny_chinese
from tests.families.tiny_clap import make_tiny_clap
from tests.families.tiny_dual import make_tiny_dual
from tests.families.tiny_fastvit import make_tiny_mobileclip
from tests.families.tiny_metaclip import make_tiny_metaclip
from tests.families.tiny_open_clip import CONVNEXT, make_tiny_open_clip
from tests.families.tiny_siglip import PATCH_SIZE, make_tiny_siglip
from tests.families.tiny_towers import make_tiny_tower
from tests.families.vilt_folder import make_vilt_folder

Inputs = Mapping[str, NDArray[np.generic]]
"""By port: "pixels", "features", "ids"."""
Outputs = dict[str, NDArray[np.float32]]
"""By "component.port"."""


@dataclass(frozen=True)
class FamilyCase:
    """One model_type.

    Attributes:
        name: its model_type.
        family: the name of its entry in `FAMILIES`.
        tiny: writes a whole folder: two layers or so, every parameter drawn from a seed, biases included.
        reference: (folder, contract, inputs) -> outputs by "component.port", by transformers' own classes.
        unread: of which parameters no component makes use, as a pattern of their whole names.
        requires: a package beside those that are always there.
        has_processors: whether tokenizer and image processor have files of their own in a folder.
        full: whether `make test` leaves the suite to `make test-full`, as of a tower much like another.
    """

    name: str
    family: str
    tiny: Callable[[Path], Path]
    reference: Callable[[Path, Contract, Inputs], Outputs]
    unread: str = "logit_scale|logit_bias"
    requires: str | None = None
    has_processors: bool = True
    full: bool = False

    @property
    def marks(self) -> tuple[pytest.MarkDecorator, ...]:
        """By which its tests are skipped where the package is not there, or left to `make test-full`."""
        marks = (pytest.mark.full,) if self.full else ()
        if self.requires is None:
            return marks
        reason = f"{self.requires} is not installed: pocketvl[open-clip]"
        return (*marks, pytest.mark.skipif(find_spec(self.requires) is None, reason=reason))


def normalized(contract: Contract, pixels: NDArray[np.generic]) -> torch.Tensor:
    """What transformers' image processor makes of cropped pixels: float32 [B, 3, H, W]."""
    spec = contract.preprocess.normalized_in_graph
    values = torch.from_numpy(pixels).float() * spec.rescale
    return ((values - torch.tensor(spec.mean)) / torch.tensor(spec.std)).permute(0, 3, 1, 2)


def _clip(folder: Path, contract: Contract, inputs: Inputs) -> Outputs:
    """AutoModel, since CLIPModel and MetaClip2Model are asked alike."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").train(False)
    with torch.no_grad():
        seen = model.get_image_features(pixel_values=normalized(contract, inputs["pixels"]))
        read = model.get_text_features(input_ids=torch.from_numpy(inputs["ids"]).long())
    return _embeddings(seen, read)


def _chinese_clip(folder: Path, contract: Contract, inputs: Inputs) -> Outputs:
    from transformers import ChineseCLIPModel

    model = ChineseCLIPModel.from_pretrained(folder, dtype=torch.float32).train(False)
    ids = torch.from_numpy(inputs["ids"]).long()
    with torch.no_grad():
        seen = model.get_image_features(pixel_values=normalized(contract, inputs["pixels"]))
        read = model.get_text_features(
            input_ids=ids, attention_mask=(ids != contract.tokenizer.pad_id).long()
        )
    return _embeddings(seen, read)


def _blip(folder: Path, contract: Contract, inputs: Inputs) -> Outputs:
    """Both embeddings, of the hidden states that the model gives beside its scores, which have to match."""
    from transformers import BlipForImageTextRetrieval

    model = BlipForImageTextRetrieval.from_pretrained(folder, dtype=torch.float32).train(False)
    ids = torch.from_numpy(inputs["ids"]).long()
    shown = {
        "input_ids": ids,
        "attention_mask": (ids != contract.tokenizer.pad_id).long(),
        "pixel_values": normalized(contract, inputs["pixels"]),
    }
    with torch.no_grad():
        found = model(**shown, use_itm_head=False)
        seen = F.normalize(model.vision_proj(found.last_hidden_state[:, 0]), dim=-1)
        read = F.normalize(model.text_proj(found.question_embeds[:, 0]), dim=-1)
        matched = model(**shown, use_itm_head=True)
    torch.testing.assert_close(seen @ read.T, found.itm_score)
    both = {"image_encoder.embedding": seen.numpy(), "text_encoder.embedding": read.numpy()}
    if contract.reranker is None:
        return both
    return {
        **both,
        "image_encoder.hidden": matched.last_hidden_state.numpy(),
        "fusion.logits": matched.itm_score.numpy(),
    }


def make_contrastive_blip(folder: Path) -> Path:
    """The same checkpoint whose second head is dropped."""
    make_tiny_blip(folder)
    (folder / "compression.json").write_text(
        '{"schema_version": 1, "linears": {}, "dropped": ["fusion"]}', encoding="utf-8"
    )
    return folder


def _siglip(folder: Path, contract: Contract, inputs: Inputs) -> Outputs:
    from transformers import SiglipModel

    model = SiglipModel.from_pretrained(folder, dtype=torch.float32).train(False)
    with torch.no_grad():
        seen = model.get_image_features(pixel_values=normalized(contract, inputs["pixels"]))
        read = model.get_text_features(input_ids=torch.from_numpy(inputs["ids"]).long())
    return _embeddings(seen, read)


def _naflex(folder: Path, contract: Contract, inputs: Inputs) -> Outputs:
    """SigLIP 2 reads a picture as a list of patches, each row by row with its colours last."""
    from transformers import Siglip2Model

    model = Siglip2Model.from_pretrained(folder, dtype=torch.float32).train(False)
    pixels = normalized(contract, inputs["pixels"])
    rows, columns = (pixels.shape[side] // PATCH_SIZE for side in (2, 3))
    patches = F.unfold(pixels, PATCH_SIZE, stride=PATCH_SIZE)
    patches = patches.reshape(len(pixels), 3, PATCH_SIZE**2, rows * columns).permute(0, 3, 2, 1).flatten(2)
    with torch.no_grad():
        seen = model.get_image_features(
            pixel_values=patches,
            pixel_attention_mask=torch.ones(patches.shape[:2], dtype=torch.long),
            spatial_shapes=torch.tensor([[rows, columns]] * len(patches)),
        )
        read = model.get_text_features(input_ids=torch.from_numpy(inputs["ids"]).long())
    return _embeddings(seen, read)


def _dual_encoder(folder: Path, contract: Contract, inputs: Inputs) -> Outputs:
    from transformers import VisionTextDualEncoderModel

    model = VisionTextDualEncoderModel.from_pretrained(folder, dtype=torch.float32).train(False)
    ids = torch.from_numpy(inputs["ids"]).long()
    with torch.no_grad():
        seen = model.get_image_features(pixel_values=normalized(contract, inputs["pixels"]))
        read = model.get_text_features(
            input_ids=ids, attention_mask=(ids != contract.tokenizer.pad_id).long()
        )
    return _embeddings(seen, read)


def _embeddings(seen: object, read: object, first: str = "image_encoder") -> Outputs:
    rows = [cast(torch.Tensor, getattr(each, "pooler_output", each)) for each in (seen, read)]
    image, text = (F.normalize(each, dim=-1).numpy() for each in rows)
    return {f"{first}.embedding": image, "text_encoder.embedding": text}


def _clap(folder: Path, contract: Contract, inputs: Inputs) -> Outputs:
    from transformers import ClapModel

    model = ClapModel.from_pretrained(folder, dtype=torch.float32).train(False)
    ids = torch.from_numpy(inputs["ids"]).long()
    with torch.no_grad():
        heard = model.get_audio_features(input_features=torch.from_numpy(inputs["features"]))
        read = model.get_text_features(
            input_ids=ids, attention_mask=(ids != contract.tokenizer.pad_id).long()
        )
    return _embeddings(heard, read, "audio_encoder")


def reference_tower(folder: Path, contract: Contract, inputs: Inputs) -> Outputs:
    """What its own class calls the embedding, or pools where it has no projection."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    kind = getattr(transformers, config.architectures[0])
    model = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").train(False)
    with torch.no_grad():
        if contract.senses:
            found = model(pixel_values=normalized(contract, inputs["pixels"]))
            rows = found.image_embeds if hasattr(found, "image_embeds") else found.pooler_output
        else:
            found = model(input_ids=torch.from_numpy(inputs["ids"]).long())
            rows = found.text_embeds if hasattr(found, "text_embeds") else found.pooler_output
    (component,) = contract.components
    return {f"{component}.embedding": F.normalize(rows, dim=-1).numpy()}


def _tower_case(name: str, family: str, architecture: str, full: bool = False) -> FamilyCase:
    tiny = partial(make_tiny_tower, architecture=architecture)
    return FamilyCase(name, family, tiny, reference_tower, full=full)


def _vilt(folder: Path, contract: Contract, inputs: Inputs) -> Outputs:
    from transformers import ViltForQuestionAnswering

    model = ViltForQuestionAnswering.from_pretrained(folder, dtype=torch.float32).train(False)
    ids = torch.from_numpy(inputs["ids"]).long()
    with torch.no_grad():
        logits = model(
            input_ids=ids,
            attention_mask=(ids != contract.tokenizer.pad_id).long(),
            pixel_values=normalized(contract, inputs["pixels"]),
        ).logits
    return {"fusion.logits": logits.numpy()}


def _open_clip(folder: Path, contract: Contract, inputs: Inputs) -> Outputs:
    import open_clip

    model = open_clip.create_model(f"local-dir:{folder}").train(False)
    with torch.no_grad():
        seen = model.encode_image(normalized(contract, inputs["pixels"]))
        read = model.encode_text(torch.from_numpy(inputs["ids"]).long())
    return _embeddings(seen, read)


_OF_OPEN_CLIP = partial(
    FamilyCase, family="open-clip", reference=_open_clip, requires="open_clip", has_processors=False
)
CASES = (
    FamilyCase("clip", "clip", make_tiny_clip, _clip),
    FamilyCase("metaclip_2", "clip", make_tiny_metaclip, _clip),
    FamilyCase("blip", "blip", make_tiny_blip, _blip),
    FamilyCase(
        "blip-contrastive",
        "blip",
        make_contrastive_blip,
        _blip,
        r"itm_head\..*|text_encoder\..*\.crossattention\..*",
        full=True,
    ),
    FamilyCase("chinese_clip", "chinese-clip", make_tiny_chinese, _chinese_clip),
    _OF_OPEN_CLIP("open_clip-vit", tiny=make_tiny_open_clip),
    _OF_OPEN_CLIP("open_clip-convnext", tiny=partial(make_tiny_open_clip, model_cfg=CONVNEXT)),
    _OF_OPEN_CLIP("open_clip-mobileclip", tiny=make_tiny_mobileclip),
    FamilyCase("siglip", "siglip", make_tiny_siglip, _siglip),
    FamilyCase("siglip2", "siglip", partial(make_tiny_siglip, patches=36), _naflex),
    FamilyCase("vision-text-dual-encoder", "vision-text-dual-encoder", make_tiny_dual, _dual_encoder),
    FamilyCase("clap", "clap", make_tiny_clap, _clap, "logit_scale_[at]"),
    FamilyCase("vilt", "vilt", make_vilt_folder, _vilt),
    _tower_case("clip_vision_model", "clip-vision", "CLIPVisionModelWithProjection"),
    _tower_case("clip_text_model", "clip-text", "CLIPTextModelWithProjection", full=True),
    _tower_case("siglip_vision_model", "siglip-vision", "SiglipVisionModel", full=True),
    _tower_case("siglip_text_model", "siglip-text", "SiglipTextModel"),
)
