"""Paints a scene like a photograph: texture, light, shadows, tilt, blur, noise, JPEG."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from typing import cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from pocketvl.tabletop.scene import Scene, Thing

DEFAULT_SIZE = 128
_OVERSAMPLE = 3

_PAINT = {
    "red": (206, 28, 32),
    "orange": (245, 128, 14),
    "yellow": (250, 220, 30),
    "green": (30, 150, 50),
    "turquoise": (38, 200, 196),
    "blue": (32, 66, 200),
    "purple": (122, 36, 168),
    "pink": (250, 120, 190),
}
_TABLES = ((196, 172, 140), (150, 120, 92), (120, 122, 126), (208, 204, 196), (92, 84, 80), (168, 164, 150))
_INK = {"light": (246, 244, 238), "dark": (28, 26, 30)}

Floats = npt.NDArray[np.float32]


def draw_scene(scene: Scene, rng: np.random.Generator, size: int = DEFAULT_SIZE) -> tuple[bytes, Scene]:
    """Paints the scene.

    Args:
        scene: what to paint.
        rng: source of everything that is not said in the scene (table, light, camera).
        size: side of the square picture in pixels.

    Returns:
        The picture as JPEG bytes, and the scene with its objects where the tilted camera sees them.
    """
    light = float(rng.uniform(0, 2 * math.pi))
    picture = _table(rng, size)
    _cast_shadows(picture, scene, rng, size, light)
    for thing in scene.things:
        _paint(picture, thing, rng, size)
    picture, seen = _tilt(picture, scene, rng, size)
    picture = _expose(picture, rng, size, light)
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=int(rng.integers(60, 96)))
    return encoded.getvalue(), seen


# --- table and light -------------------------------------------------------------------------------------


def _noise(rng: np.random.Generator, shape: tuple[int, int], size: int) -> Floats:
    """Smooth noise: a coarse random grid, enlarged to [size, size], about standard normal."""
    coarse = Image.fromarray(rng.standard_normal(shape, dtype=np.float32))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))


def _table(rng: np.random.Generator, size: int) -> Image.Image:
    base = np.array(_TABLES[rng.integers(len(_TABLES))], np.float32) * float(rng.uniform(0.85, 1.12))
    kind = rng.integers(3)
    if kind == 0:  # wood: long grain
        grain = _noise(rng, (48, 4), size) * 9 + _noise(rng, (12, 2), size) * 8
    elif kind == 1:  # cloth: fine weave
        grain = _noise(rng, (60, 60), size) * 6 + _noise(rng, (5, 5), size) * 8
    else:  # stone: blotches
        grain = _noise(rng, (24, 24), size) * 7 + _noise(rng, (7, 7), size) * 9
    if rng.random() < 0.5:
        grain = grain.T
    return Image.fromarray(_to_bytes(base + grain[..., None]))


def _expose(picture: Image.Image, rng: np.random.Generator, size: int, light: float) -> Image.Image:
    """Light falling off across the table, colour of the light, blur of the lens, noise of the sensor."""
    blur = float(rng.uniform(0, 0.9)) * size / DEFAULT_SIZE
    if blur > 0.2:
        picture = picture.filter(ImageFilter.GaussianBlur(blur))
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    fall = math.cos(light) * ramp[None, :] + math.sin(light) * ramp[:, None]
    gain = float(rng.uniform(0.9, 1.1)) - float(rng.uniform(0.0, 0.16)) * fall
    tint = 1 + rng.uniform(-0.05, 0.05, 3).astype(np.float32)
    sensor = rng.standard_normal((size, size, 1), dtype=np.float32) * float(rng.uniform(1, 7))
    values = np.asarray(picture, np.float32) * (gain.astype(np.float32)[..., None] * tint) + sensor
    return Image.fromarray(_to_bytes(values))


def _to_bytes(values: Floats) -> npt.NDArray[np.uint8]:
    return np.clip(values, 0, 255).astype(np.uint8)


# --- objects ---------------------------------------------------------------------------------------------


def _outline(shape: str, angle: float) -> list[tuple[float, float]]:
    """Corners of a shape in the unit circle, rotated; circle and ring are drawn as ellipses instead."""
    if shape == "square":
        points = [(math.pi / 4 + k * math.pi / 2, 1.0) for k in range(4)]
    elif shape == "triangle":
        points = [(-math.pi / 2 + k * 2 * math.pi / 3, 1.0) for k in range(3)]
    elif shape == "star":
        points = [(-math.pi / 2 + k * math.pi / 5, 1.0 if k % 2 == 0 else 0.44) for k in range(10)]
    elif shape == "cross":
        arm = 0.34
        corners = [(arm, 0.94), (arm, arm), (0.94, arm)]
        quarter = [(x, y) for x, y in corners] + [(0.94, -arm)]
        turned: list[tuple[float, float]] = []
        for k in range(4):
            c, s = math.cos(-k * math.pi / 2), math.sin(-k * math.pi / 2)
            turned += [(c * x - s * y, s * x + c * y) for x, y in quarter[:3]]
        points = [(math.atan2(y, x), math.hypot(x, y)) for x, y in turned]
    else:
        points = [(math.atan2(y, x), math.hypot(x, y)) for x, y in _HEART]
    return [(r * math.cos(a + angle), r * math.sin(a + angle)) for a, r in points]


def _heart() -> list[tuple[float, float]]:
    curve = []
    for k in range(40):
        t = 2 * math.pi * k / 40
        x = 16 * math.sin(t) ** 3
        y = -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t))
        curve.append((x / 17.5, (y - 2.5) / 17.5))
    return curve


_HEART = _heart()


def _mask(thing: Thing, radius: float, centre: tuple[float, float], side: int) -> Image.Image:
    """Coverage [side, side] of the thing, 8 bit, antialiased."""
    mask = Image.new("L", (side * _OVERSAMPLE, side * _OVERSAMPLE), 0)
    pen = ImageDraw.Draw(mask)
    (cx, cy), r = (c * _OVERSAMPLE for c in centre), radius * _OVERSAMPLE
    if thing.look.shape in ("circle", "ring"):
        pen.ellipse((cx - r, cy - r, cx + r, cy + r), fill=255)
        if thing.look.shape == "ring":
            hole = 0.46 * r
            pen.ellipse((cx - hole, cy - hole, cx + hole, cy + hole), fill=0)
    else:
        pen.polygon([(cx + r * x, cy + r * y) for x, y in _outline(thing.look.shape, thing.angle)], fill=255)
    return mask.reduce(_OVERSAMPLE)


def _surface(thing: Thing, rng: np.random.Generator, side: int, scale: float) -> Image.Image:
    """The thing's colour and pattern [side, side] RGB; `scale` is pixels per pixel of the default size."""
    shade = float(rng.uniform(0.88, 1.08))
    paint = tuple(min(255, int(c * shade)) for c in _PAINT[thing.look.colour])
    ink = _INK["light" if rng.random() < 0.6 else "dark"]
    surface = Image.new("RGB", (side * 2, side * 2), paint)
    if thing.look.pattern == "solid":
        return surface.reduce(2)
    pen = ImageDraw.Draw(surface)
    period = 2 * scale * (6.6 + 0.13 * thing.radius * DEFAULT_SIZE)
    start = float(rng.uniform(0, period))
    if thing.look.pattern == "striped":
        slope = math.tan(thing.angle)
        lean = slope * side * 2
        for k in range(-int(abs(lean) / period) - 2, int((2 * side + abs(lean)) / period) + 2):
            y = start + k * period
            pen.line((0, y, 2 * side, y + lean), fill=ink, width=max(1, round(period * 0.42)))
    else:
        dot = 0.30 * period
        for row in range(int(2 * side / period) + 2):
            for column in range(int(2 * side / period) + 2):
                x = (column + (row % 2) / 2 - 0.5) * period + start / 2
                y = (row - 0.5) * period + start / 2
                pen.ellipse((x - dot, y - dot, x + dot, y + dot), fill=ink)
    return surface.reduce(2)


def _corner(thing: Thing, size: int, radius: float) -> tuple[int, int, int]:
    """Left, top and side of the whole-pixel tile around a thing."""
    left, top = math.floor(thing.x * size - radius) - 1, math.floor(thing.y * size - radius) - 1
    return left, top, math.ceil(2 * radius) + 3


def _paint(picture: Image.Image, thing: Thing, rng: np.random.Generator, size: int) -> None:
    radius = thing.radius * size
    left, top, side = _corner(thing, size, radius)
    mask = _mask(thing, radius, (thing.x * size - left, thing.y * size - top), side)
    picture.paste(_surface(thing, rng, side, size / DEFAULT_SIZE), (left, top), mask)


def _cast_shadows(
    picture: Image.Image, scene: Scene, rng: np.random.Generator, size: int, light: float
) -> None:
    length = float(rng.uniform(0.008, 0.028)) * size
    dx, dy = length * math.cos(light), length * math.sin(light)
    depth = float(rng.uniform(0.35, 0.65))
    layer = Image.new("L", (size, size), 0)
    for thing in scene.things:
        radius = thing.radius * size
        left, top, side = _corner(thing, size, radius)
        mask = _mask(thing, radius, (thing.x * size - left, thing.y * size - top), side)
        layer.paste(int(255 * depth), (left + round(dx), top + round(dy)), mask)
    layer = layer.filter(ImageFilter.BoxBlur(max(1.0, 0.014 * size)))
    picture.paste((12, 10, 14), (0, 0), layer)


# --- camera ----------------------------------------------------------------------------------------------


def _tilt(
    picture: Image.Image, scene: Scene, rng: np.random.Generator, size: int
) -> tuple[Image.Image, Scene]:
    """Looks at the table a little askew; things move with it."""
    target = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], np.float64)
    source = target + rng.uniform(-0.025, 0.025, (4, 2))
    to_source = _homography(target, source)
    pixels = np.diag([size, size, 1.0]) @ to_source @ np.diag([1 / size, 1 / size, 1.0])
    coefficients = (pixels / pixels[2, 2]).ravel()[:8].tolist()
    tilted = picture.transform(
        (size, size),
        Image.Transform.PERSPECTIVE,
        coefficients,
        Image.Resampling.BILINEAR,
        fillcolor=picture.getpixel((0, 0)),
    )
    to_target = np.linalg.inv(to_source).astype(np.float64)
    return tilted, Scene(tuple(_moved(thing, to_target) for thing in scene.things))


def _homography(source: npt.NDArray[np.float64], target: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The 3x3 projective map that takes four source points to four target points."""
    rows, values = [], []
    for (x, y), (u, v) in zip(source, target, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(values)), 1.0).reshape(3, 3)


def _moved(thing: Thing, homography: npt.NDArray[np.float64]) -> Thing:
    u, v, w = cast(list[float], (homography @ (thing.x, thing.y, 1.0)).tolist())
    return replace(thing, x=u / w, y=v / w)
