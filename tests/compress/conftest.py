"""Small transformers in which pruning can be watched."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from pocketvl.families import open_checkpoint
from tests.families.tiny import IMAGE_SIZE, TEXT_LENGTH, make_tiny_clip
from tests.families.tiny_vilt import IMAGE_SIZE as VILT_IMAGE_SIZE
from tests.families.tiny_vilt import make_tiny_vilt


@dataclass(frozen=True, eq=False)
class Model:
    """A module with inputs for it."""

    module: nn.Module
    feed: torch.Tensor

    def outputs(self) -> torch.Tensor:
        with torch.inference_mode():
            found: torch.Tensor = self.module(self.feed)
        return found


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_clip(tmp_path_factory.mktemp("compress") / "clip")


@pytest.fixture(scope="session")
def _models(clip_folder: Path) -> dict[str, Model]:
    source = open_checkpoint(clip_folder)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (5, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=torch.uint8, generator=generator)
    ids = torch.randint(0, 380, (5, TEXT_LENGTH), dtype=torch.int32, generator=generator)
    ids[:, -3:] = 381
    vilt = make_tiny_vilt()
    floats = torch.randn(5, 3, VILT_IMAGE_SIZE, VILT_IMAGE_SIZE, generator=generator)
    return {
        "image": Model(source.component("image_encoder").module, pixels),
        "text": Model(source.component("text_encoder").module, ids),
        "vilt": Model(vilt, floats),
    }


@pytest.fixture(params=["image", "text", "vilt"])
def model(request: pytest.FixtureRequest, _models: dict[str, Model]) -> Model:
    """A copy of one of them, to be changed."""
    found = _models[request.param]
    return Model(deepcopy(found.module), found.feed)
