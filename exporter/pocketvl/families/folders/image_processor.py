"""The many ways in which folders write down their preprocessing, read into one `ImageProcessor`.

transformers' own classes read the keys, so that each means here what it means there, absent ones and nulls
included; what comes out is then either said in a `ImageProcessor` or refused.

Source: transformers 5.23, `ImageProcessingMixin.get_image_processor_dict` (which file counts),
`AutoImageProcessor.from_pretrained` (which class reads it), `CLIPImageProcessorPil`, `BlipImageProcessorPil`,
`ChineseCLIPImageProcessorPil`, `SiglipImageProcessorPil` and `Siglip2ImageProcessorPil` (what the keys mean).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketvl.errors import SourceError
from pocketvl.families.folders.hf import read_json
from pocketvl_runtime.errors import quoted
from pocketvl_runtime.manifest import Filter, ImageProcessor, Normalization, ResizeMode

if TYPE_CHECKING:
    from transformers.image_processing_backends import PilBackend

CLIP_PROCESSOR, SIGLIP_PROCESSOR = "CLIPImageProcessor", "SiglipImageProcessor"
NAFLEX_PROCESSOR = "Siglip2ImageProcessor"
"""SigLIP 2's, which gives patches, as many as the picture's shape allows; read for square pictures alone."""
CHINESE_CLIP_PROCESSOR, BLIP_PROCESSOR = "ChineseCLIPImageProcessor", "BlipImageProcessor"
_MODULES = {
    CLIP_PROCESSOR: "clip",
    SIGLIP_PROCESSOR: "siglip",
    CHINESE_CLIP_PROCESSOR: "chinese_clip",
    BLIP_PROCESSOR: "blip",
    NAFLEX_PROCESSOR: "siglip2",
}
_COMBINED, _SINGLE = "processor_config.json", "preprocessor_config.json"
# Pillow's numbers; another one, nearest, is not run
_FILTERS = {1: Filter.LANCZOS, 2: Filter.BILINEAR, 3: Filter.BICUBIC, 4: Filter.BOX, 5: Filter.HAMMING}
_MOST_PATCHES = 256**2
_READ = {
    *("patch_size", "max_num_patches"),
    *("do_convert_rgb", "do_resize", "size", "default_to_square", "resample", "do_center_crop", "crop_size"),
    *("do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std", "do_pad", "pad_size"),
}
# Keys of the class that change nothing about the pixels of one RGB picture.
_WITHOUT_EFFECT = {
    *("data_format", "input_data_format", "device", "return_tensors", "disable_grouping", "image_seq_length"),
}
# Keys beside the class's own that say nothing of pixels, or are read before the class is asked.
_METADATA = {
    *("image_processor_type", "feature_extractor_type", "processor_class", "_processor_class", "auto_map"),
    *("model_input_names", "use_square_size", "_valid_processor_keys", "_valid_kwargs_names"),
}


@dataclass(frozen=True)
class _Stored:
    """What a file says of preprocessing, and which file that is."""

    config: dict[str, Any]
    path: Path


def read_preprocess(
    folder: Path, image_size: int, default: str | None = None
) -> tuple[ImageProcessor, tuple[str, ...]]:
    """Read the `image_processor` part of processor_config.json; without one, preprocessor_config.json.

    Args:
        folder: the model folder.
        image_size: the picture's side that the model takes, pixels.
        default: the image processor that transformers takes for this kind of model where no file names one;
            None if there is none. A model that takes `NAFLEX_PROCESSOR` takes no other.

    Returns:
        The preprocessing, and notes for the user: where neither file exists, CLIP's defaults at `image_size`.

    Raises:
        SourceError: a file is broken, or asks for something that the runtime does not do; or neither exists
            and `default` is not CLIP's.
    """
    stored, unread = _find(folder)
    if stored is None:
        path = folder / _SINGLE
        if default != CLIP_PROCESSOR:
            raise SourceError(f"{folder} has neither {_COMBINED} nor {_SINGLE}; add one of them")
        note = f"no {_SINGLE}: CLIP's own preprocessing at {image_size} pixels is assumed"
        sizes = {"size": image_size, "crop_size": image_size}
        return _spec(_processor(sizes, path, CLIP_PROCESSOR), path, image_size), (note,)
    kind = _kind(stored, folder, default)
    processor = _processor(stored.config, stored.path, kind)
    notes = _notes(stored, processor, kind)
    if unread is not None:
        notes += _differences(stored, processor, unread, kind)
    if kind == NAFLEX_PROCESSOR:
        side = image_size // getattr(processor, "patch_size", image_size)
        notes += (f"pictures of every shape are stretched to one grid of {side} x {side} patches",)
    return _spec(processor, stored.path, image_size), notes


def naflex_grid(folder: Path) -> int:
    """How many patches a side a square picture has, by the image processor of a NaFlex model.

    Raises:
        SourceError: a file is missing or broken, or its max_num_patches is no number of patches.
    """
    stored, _ = _find(folder)
    if stored is None:
        raise SourceError(f"{folder} has neither {_COMBINED} nor {_SINGLE}; add one of them")
    most = stored.config.get("max_num_patches", 256)  # the class's own default
    if isinstance(most, bool) or not isinstance(most, int) or not 1 <= most <= _MOST_PATCHES:
        raise SourceError(f"{stored.path}: max_num_patches is {quoted(most)}, not 1 to {_MOST_PATCHES}")
    return math.isqrt(most)


def _find(folder: Path) -> tuple[_Stored | None, Path | None]:
    """The file that counts, and one beside it that does not."""
    combined, single = folder / _COMBINED, folder / _SINGLE
    nested = read_json(combined).get("image_processor") if combined.exists() else None
    if nested is not None:
        if not isinstance(nested, dict):
            raise SourceError(f"{combined}: image_processor is {quoted(nested)}, not a JSON object")
        return _Stored(nested, combined), single if single.exists() else None
    return (_Stored(read_json(single), single), None) if single.exists() else (None, None)


def _kind(stored: _Stored, folder: Path, default: str | None) -> str:
    """Which image processor reads a file."""
    kind = stored.config.get("image_processor_type")
    if kind is None:
        kind = stored.config.get("feature_extractor_type")
    if kind is None:
        kind = read_json(folder / "config.json").get("image_processor_type", default)
    # as it was called before, and with torchvision, and without
    name = kind.replace("FeatureExtractor", "ImageProcessor") if isinstance(kind, str) else ""
    name = name.removesuffix("Fast").removesuffix("Pil")
    others = [each for each in _MODULES if each != NAFLEX_PROCESSOR]
    known = [NAFLEX_PROCESSOR] if default == NAFLEX_PROCESSOR else others
    if name not in known:
        found = (
            "it names no image_processor_type" if kind is None else f"image_processor_type is {quoted(kind)}"
        )
        raise SourceError(f"{stored.path}: {found}; only {', '.join(known)} can be read here")
    return name


def _class(kind: str) -> type[PilBackend]:
    name = _MODULES[kind]
    found: type[PilBackend] = getattr(
        import_module(f"transformers.models.{name}.image_processing_pil_{name}"), f"{kind}Pil"
    )
    return found


def _processor(config: dict[str, Any], path: Path, kind: str) -> PilBackend:
    """transformers' image processor of a configuration.

    Raises:
        SourceError: transformers refuses it, or it holds a key that this reader does not know.
    """
    chosen = _class(kind)
    names = set(chosen.valid_kwargs.__annotations__)
    for key, value in config.items():
        is_new = key in names - _READ - _WITHOUT_EFFECT and value is not None
        # set as an attribute, it would replace a part of the class
        is_part = key not in names | _METADATA and (hasattr(chosen, key) or key == "self")
        if is_new or is_part:
            raise SourceError(f"{path}: {key} is {quoted(value)}; it is not supported, remove it")
    try:
        return chosen(**config)
    except Exception as error:  # ValueError, IndexError or TypeError, by how a size is wrong
        for key in ("size", "crop_size", "pad_size"):
            try:
                chosen(**{key: config.get(key)})
            except Exception:
                raise SourceError(
                    f"{path}: {key} is {quoted(config[key])}; known are a number, height with width, and "
                    "for size shortest_edge"
                ) from error
        raise SourceError(f"{path}: transformers cannot read it: {error}") from error


def _notes(stored: _Stored, processor: PilBackend, kind: str) -> tuple[str, ...]:
    name = stored.path.name
    known = {*processor.valid_kwargs.__annotations__, *_METADATA}
    notes = [
        f"{name}: {key} is no key of {kind}: without effect" for key in stored.config if key not in known
    ]
    own_code = stored.config.get("auto_map")
    if isinstance(own_code, dict) and "AutoImageProcessor" in own_code:
        notes.append(f"{name}: auto_map names code of its own, which is not run; {kind} is taken")
    return tuple(notes)


def _differences(stored: _Stored, processor: PilBackend, unread: Path, kind: str) -> tuple[str, ...]:
    """A note where another file says something else, which transformers does not read either."""
    counts = f"{stored.path.name} counts, as in transformers"
    try:
        other = _processor(read_json(unread), unread, kind)
    except SourceError:
        return (f"{unread.name} cannot be read; {counts}",)
    keys = sorted(_READ - {"default_to_square"})  # which size holds already
    differing = [key for key in keys if _meaning(processor, key) != _meaning(other, key)]
    if not differing:
        return ()
    return (f"{stored.path.name} and {unread.name} differ in {', '.join(differing)}; {counts}",)


def _meaning(processor: PilBackend, key: str) -> object:
    value = getattr(processor, key, None)
    if key.startswith("do_"):
        return bool(value)
    return (value,) * 3 if key.startswith("image_") and isinstance(value, int | float) else value


def _spec(processor: PilBackend, path: Path, image_size: int) -> ImageProcessor:
    given = {key: getattr(processor, key, None) for key in _READ}
    flags = {key: _flag(given[key], key, path) for key in _READ if key.startswith("do_")}
    if not flags["do_convert_rgb"] and given["max_num_patches"] is None:  # NaFlex takes nothing but RGB
        raise SourceError(
            f"{path}: do_convert_rgb is off, but every picture is made RGB here; set it to true"
        )
    if not flags["do_resize"]:
        raise SourceError(f"{path}: do_resize is off, but the model takes pictures of one size only")
    if flags["do_pad"] and given["pad_size"] is not None:  # else to the largest of a batch, and all are alike
        raise SourceError(f"{path}: do_pad is true; padding to a pad_size is not supported")
    by = _filter(given["resample"], path)
    if given["max_num_patches"] is None:
        mode, height, width = _resize(given["size"], path)
        crop = _crop(given["crop_size"], path) if flags["do_center_crop"] else None
    else:  # of a square picture, to which neither size nor crop_size means anything
        mode, crop = ResizeMode.EXACT, None
        height = width = math.isqrt(given["max_num_patches"]) * _side(given["patch_size"], "patch_size", path)
    taken = crop or ((height, width) if mode is ResizeMode.EXACT else None)
    if taken is None:
        raise SourceError(
            f"{path}: do_center_crop is off and size keeps the aspect ratio: pictures differ in size"
        )
    if taken != (image_size, image_size):
        raise SourceError(
            f"{path}: {'crop_size' if crop else 'size'} makes pictures of {taken[0]} x {taken[1]}, "
            f"config.json's image_size is {image_size}"
        )
    if height < taken[0] or width < taken[1]:
        raise SourceError(f"{path}: crop_size {taken[0]} x {taken[1]} is larger than size {height} x {width}")
    rescale = _number(given["rescale_factor"], "rescale_factor", path) if flags["do_rescale"] else 1.0
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if flags["do_normalize"]:
        mean = _per_channel(given["image_mean"], "image_mean", path)
        std = _per_channel(given["image_std"], "image_std", path)
    if not all(value > 0 for value in std):
        raise SourceError(f"{path}: image_std is {list(std)}; it must be above 0")
    return ImageProcessor.resampled(by, mode, (height, width), crop, Normalization(mean, std, rescale))


def _filter(value: object, path: Path) -> Filter:
    found = _FILTERS.get(value) if isinstance(value, int) and not isinstance(value, bool) else None
    if found is None:  # 3.0 too, for that would be bilinear
        known = ", ".join(f"{number} ({each.value})" for number, each in _FILTERS.items())
        raise SourceError(f"{path}: resample is {quoted(value)}; supported are {known}")
    return found


def _flag(value: object, name: str, path: Path) -> bool:
    if value is None:
        return False  # so a null is taken; an absent key has its default by now
    if not isinstance(value, bool):
        raise SourceError(f"{path}: {name} is {quoted(value)}, neither true nor false")
    return value


def _sides(value: Iterable[tuple[str, int]] | None, name: str, path: Path) -> dict[str, int]:
    """What a size says, without what it leaves open."""
    if value is None:
        raise SourceError(f"{path}: {name} is null")
    sides = dict(value)
    for key, side in sides.items():
        if not _is_side(side):
            raise SourceError(f"{path}: {name} is {quoted(sides)}; {key} is not a number of pixels")
    return sides


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 8192


def _side(value: object, name: str, path: Path) -> int:
    if not _is_side(value):
        raise SourceError(f"{path}: {name} is {quoted(value)}, not a number of pixels")
    assert isinstance(value, int)
    return value


def _resize(value: Iterable[tuple[str, int]] | None, path: Path) -> tuple[ResizeMode, int, int]:
    sides = _sides(value, "size", path)
    if set(sides) == {"shortest_edge"}:
        return ResizeMode.SHORTEST_EDGE, sides["shortest_edge"], sides["shortest_edge"]
    if set(sides) == {"height", "width"}:
        return ResizeMode.EXACT, sides["height"], sides["width"]
    raise SourceError(
        f"{path}: size is {quoted(sides)}; supported are a number, shortest_edge, and height with width"
    )


def _crop(value: Iterable[tuple[str, int]] | None, path: Path) -> tuple[int, int]:
    sides = _sides(value, "crop_size", path)
    if set(sides) == {"height", "width"}:
        return sides["height"], sides["width"]
    raise SourceError(f"{path}: crop_size is {quoted(sides)}; supported are a number, and height with width")


def _number(value: object, name: str, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise SourceError(f"{path}: {name} is {quoted(value)}, not a positive number")
    return float(value)


def _per_channel(value: object, name: str, path: Path) -> tuple[float, float, float]:
    """Red, green and blue of three numbers, or of one for all."""
    numbers: list[Any] = list(value) if isinstance(value, list | tuple) else [value] * 3
    if len(numbers) != 3 or any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
        raise SourceError(f"{path}: {name} is {quoted(value)}, neither a number nor three (red, green, blue)")
    if not all(abs(n) < 1e6 for n in numbers):
        raise SourceError(f"{path}: {name} holds a value that is not finite")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])
