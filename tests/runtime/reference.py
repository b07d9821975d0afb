"""What transformers' image processor makes of a picture, which ours has to give too."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from pocketvl_runtime.manifest import ImageProcessor, Resize
from tests.pillow import rows_first


def clip_pixels(upright: Image.Image, spec: ImageProcessor) -> npt.NDArray[np.generic]:
    """[H, W, 3] of an upright picture, neither rescaled nor normalised."""
    resize, *crops = spec.steps
    assert isinstance(resize, Resize)
    exact = {"height": resize.height or 0, "width": resize.width or 0}
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": resize.size} if resize.size else exact,
        do_center_crop=bool(crops),
        crop_size={"height": spec.height, "width": spec.width},
        do_rescale=False,
        do_normalize=False,
    )
    with rows_first():
        values = processor(upright, return_tensors="np")["pixel_values"][0]
    return np.asarray(values).transpose(1, 2, 0)
