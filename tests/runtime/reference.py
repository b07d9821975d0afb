"""What transformers' image processor makes of a picture, which ours has to give too."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from pocketvl_runtime.manifest import PreprocessSpec, ResizeMode


def clip_pixels(upright: Image.Image, spec: PreprocessSpec) -> npt.NDArray[np.generic]:
    """[H, W, 3] of an upright picture, neither rescaled nor normalised."""
    size = {"height": spec.resize_height, "width": spec.resize_width}
    if spec.resize_mode is ResizeMode.SHORTEST_EDGE:
        size = {"shortest_edge": spec.resize_height}
    processor = CLIPImageProcessorPil(
        size=size,
        do_center_crop=spec.crop_height is not None,
        crop_size={"height": spec.crop_height or 1, "width": spec.crop_width or 1},
        do_rescale=False,
        do_normalize=False,
    )
    return np.asarray(processor(upright, return_tensors="np")["pixel_values"][0]).transpose(1, 2, 0)
