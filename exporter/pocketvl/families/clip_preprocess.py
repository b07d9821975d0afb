"""The many ways in which CLIP folders write down their preprocessing, read into one `PreprocessSpec`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pocketvl.errors import SourceError
from pocketvl.families.checkpoint import read_json
from pocketvl_runtime.manifest import PreprocessSpec, ResizeMode

_BICUBIC = 3
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
_PROCESSORS = ("CLIPImageProcessor", "CLIPFeatureExtractor")


def read_preprocess(folder: Path, image_size: int) -> tuple[PreprocessSpec, tuple[str, ...]]:
    """Reads preprocessor_config.json, or the `image_processor` part of processor_config.json.

    Args:
        folder: the model folder.
        image_size: the picture's side that the model takes, pixels.

    Returns:
        The preprocessing, and notes for the user: where neither file exists, CLIP's defaults at `image_size`.

    Raises:
        SourceError: a file is broken, or asks for something that the runtime does not do.
    """
    config, path = _find(folder)
    if config is None:
        note = f"no preprocessor_config.json: CLIP's own preprocessing at {image_size} pixels is assumed"
        return _spec({"size": image_size, "crop_size": image_size}, path, image_size), (note,)
    return _spec(config, path, image_size), ()


def _find(folder: Path) -> tuple[dict[str, Any] | None, Path]:
    path = folder / "preprocessor_config.json"
    if path.exists():
        return read_json(path), path
    combined = folder / "processor_config.json"
    if combined.exists():
        nested = read_json(combined).get("image_processor")
        if isinstance(nested, dict):
            return nested, combined
    return None, path


def _spec(config: dict[str, Any], path: Path, image_size: int) -> PreprocessSpec:
    kind = config.get("image_processor_type", config.get("feature_extractor_type", _PROCESSORS[0]))
    if not isinstance(kind, str) or not kind.startswith(_PROCESSORS):
        raise SourceError(f"{path}: {kind!r} is not CLIP's image processor ({', '.join(_PROCESSORS)})")
    if not _flag(config, "do_resize", path):
        raise SourceError(f"{path}: do_resize is false, but the model takes pictures of one size only")
    if config.get("resample", _BICUBIC) != _BICUBIC:
        raise SourceError(
            f"{path}: resample is {config['resample']!r}; only bicubic ({_BICUBIC}) is supported"
        )
    mode, height, width = _resize(config.get("size", 224), path)
    crop = _crop(config.get("crop_size", 224), path) if _flag(config, "do_center_crop", path) else None
    taken = crop or ((height, width) if mode is ResizeMode.EXACT else None)
    if taken is None:
        raise SourceError(
            f"{path}: do_center_crop is false and size keeps the aspect ratio: pictures differ in size"
        )
    if taken != (image_size, image_size):
        raise SourceError(
            f"{path} makes pictures of {taken[0]} x {taken[1]}, config.json's image_size is {image_size}"
        )
    if height < taken[0] or width < taken[1]:
        raise SourceError(f"{path}: crop_size {taken[0]} x {taken[1]} is larger than size {height} x {width}")
    rescale = _number(config.get("rescale_factor", 1 / 255), "rescale_factor", path)
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if _flag(config, "do_normalize", path):
        mean = _triple(config.get("image_mean", _MEAN), "image_mean", path)
        std = _triple(config.get("image_std", _STD), "image_std", path)
    if not all(value > 0 for value in std):
        raise SourceError(f"{path}: image_std is {list(std)}; it must be above 0")
    return PreprocessSpec(
        resize_mode=mode,
        resize_height=height,
        resize_width=width,
        crop_height=crop[0] if crop else None,
        crop_width=crop[1] if crop else None,
        resample="bicubic",
        mean=mean,
        std=std,
        rescale=rescale if _flag(config, "do_rescale", path) else 1.0,
    )


def _flag(config: dict[str, Any], name: str, path: Path) -> bool:
    value = config.get(name)
    if value is None:
        return True  # the default of each one in CLIPImageProcessor
    if not isinstance(value, bool):
        raise SourceError(f"{path}: {name} is {value!r}, neither true nor false")
    return value


def _side(value: object, name: str, path: Path) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 8192:
        raise SourceError(f"{path}: {name} is {value!r}, not a number of pixels")
    return value


def _resize(value: object, path: Path) -> tuple[ResizeMode, int, int]:
    if not isinstance(value, dict):
        edge = _side(value, "size", path)
        return ResizeMode.SHORTEST_EDGE, edge, edge
    given = {name: side for name, side in value.items() if side is not None}
    if set(given) == {"shortest_edge"}:
        edge = _side(given["shortest_edge"], "size.shortest_edge", path)
        return ResizeMode.SHORTEST_EDGE, edge, edge
    if set(given) == {"height", "width"}:
        return (
            ResizeMode.EXACT,
            _side(given["height"], "size.height", path),
            _side(given["width"], "size.width", path),
        )
    raise SourceError(f"{path}: size is {value!r}; known are a number, shortest_edge, and height with width")


def _crop(value: object, path: Path) -> tuple[int, int]:
    if not isinstance(value, dict):
        side = _side(value, "crop_size", path)
        return side, side
    given = {name: side for name, side in value.items() if side is not None}
    if set(given) == {"height", "width"}:
        return _side(given["height"], "crop_size.height", path), _side(
            given["width"], "crop_size.width", path
        )
    raise SourceError(f"{path}: crop_size is {value!r}; known are a number, and height with width")


def _number(value: object, name: str, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise SourceError(f"{path}: {name} is {value!r}, not a positive number")
    return float(value)


def _triple(value: object, name: str, path: Path) -> tuple[float, float, float]:
    numbers = list(value) if isinstance(value, list | tuple) else []
    if len(numbers) != 3 or any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
        raise SourceError(f"{path}: {name} is {value!r}, not three numbers (red, green, blue)")
    if not all(abs(n) < 1e6 for n in numbers):
        raise SourceError(f"{path}: {name} holds a value that is not finite")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])
