"""What stands on the table: objects, their places, and the relations between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross", "ring")
COLOURS = ("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink")
SIZES = ("small", "medium", "large")
PATTERNS = ("solid", "striped", "dotted")

_RADIUS = {"small": 0.102, "medium": 0.147, "large": 0.210}  # of the picture's side
_RADIUS_JITTER = 0.04
MAX_THINGS = 5
_COUNT_WEIGHTS = (0.18, 0.34, 0.24, 0.14, 0.10)  # for 1 to MAX_THINGS objects
_GAP = 0.025  # least distance between two outlines, and to the border
_CLEAR_DISTANCE = 0.17  # a relation is stated only where centres are at least this far apart along its axis
_CLEAR_SLOPE = 1.35  # ... and this many times farther than along the other axis
_SAFETY = 1.2  # how much clearer one pair must be, so that it is still clear after the camera is tilted


class Relation(StrEnum):
    """Where the first object lies, seen from the second."""

    LEFT = "left"
    RIGHT = "right"
    ABOVE = "above"
    BELOW = "below"

    @property
    def reverse(self) -> Relation:
        return _REVERSE[self]


_REVERSE = {
    Relation.LEFT: Relation.RIGHT,
    Relation.RIGHT: Relation.LEFT,
    Relation.ABOVE: Relation.BELOW,
    Relation.BELOW: Relation.ABOVE,
}


class Look(NamedTuple):
    """The four attributes by which language tells objects apart."""

    shape: str
    colour: str
    size: str
    pattern: str


@dataclass(frozen=True)
class Thing:
    """One object: its look, and where it is drawn.

    Attributes:
        look: shape, colour, size, pattern.
        x: centre, from the left border, as a fraction of the picture's side.
        y: centre, from the upper border, likewise.
        radius: of the circle around it, likewise.
        angle: rotation in radians.
    """

    look: Look
    x: float
    y: float
    radius: float
    angle: float

    def to_json(self) -> dict[str, Any]:
        look = self.look
        return {
            "shape": look.shape,
            "colour": look.colour,
            "size": look.size,
            "pattern": look.pattern,
            "x": round(self.x, 4),
            "y": round(self.y, 4),
            "radius": round(self.radius, 4),
        }


@dataclass(frozen=True)
class Scene:
    """A table with one to five things on it; no two share both shape and colour."""

    things: tuple[Thing, ...]

    def mirrored(self) -> Scene:
        """The same scene seen in a mirror: left and right change places."""
        return Scene(tuple(replace(t, x=1.0 - t.x, angle=-t.angle) for t in self.things))


def relation_between(first: Thing, second: Thing, safety: float = 1.0) -> Relation | None:
    """The relation that anyone would agree on, or None where the two lie askew or too close."""
    dx, dy = first.x - second.x, first.y - second.y
    distance, slope = safety * _CLEAR_DISTANCE, safety * _CLEAR_SLOPE
    if abs(dx) >= distance and abs(dx) >= slope * abs(dy):
        return Relation.LEFT if dx < 0 else Relation.RIGHT
    if abs(dy) >= distance and abs(dy) >= slope * abs(dx):
        return Relation.ABOVE if dy < 0 else Relation.BELOW
    return None


def possibly_related(first: Thing, second: Thing, relation: Relation) -> bool:
    """Whether a generous observer could call the relation true: `first` lies on that side at all."""
    dx, dy = first.x - second.x, first.y - second.y
    return {
        Relation.LEFT: dx < 0,
        Relation.RIGHT: dx > 0,
        Relation.ABOVE: dy < 0,
        Relation.BELOW: dy > 0,
    }[relation]


def clear_pairs(scene: Scene, safety: float = 1.0) -> Iterator[tuple[Thing, Thing, Relation]]:
    """Every ordered pair of things with an undisputed relation."""
    for first, second in permutations(scene.things, 2):
        relation = relation_between(first, second, safety)
        if relation is not None:
            yield first, second, relation


def scene_rng(seed: int, index: int, purpose: int = 0) -> np.random.Generator:
    """The random source of scene `index` of world `seed`; `purpose` keeps layout, paint and words apart."""
    return np.random.default_rng([seed, index, purpose])


def sample_scene(rng: np.random.Generator) -> Scene:
    """Draw a scene at random; where there are two things or more, at least one pair is clearly related."""
    while True:
        count = int(rng.choice(MAX_THINGS, p=_COUNT_WEIGHTS)) + 1
        scene = _place(rng, count)
        if scene is not None and (count == 1 or next(clear_pairs(scene, _SAFETY), None)):
            return scene


def _place(rng: np.random.Generator, count: int) -> Scene | None:
    things: list[Thing] = []
    taken: set[tuple[str, str]] = set()
    size_weights = (1 / 3, 1 / 3, 1 / 3) if count <= 3 else (0.5, 0.35, 0.15)
    while len(things) < count:
        look = Look(
            shape=SHAPES[rng.integers(len(SHAPES))],
            colour=COLOURS[rng.integers(len(COLOURS))],
            size=SIZES[rng.choice(3, p=size_weights)],
            pattern=PATTERNS[rng.integers(len(PATTERNS))],
        )
        if (look.shape, look.colour) in taken:
            continue
        radius = _RADIUS[look.size] * (1 + _RADIUS_JITTER * float(rng.uniform(-1, 1)))
        spot = _free_spot(rng, radius, things)
        if spot is None:
            return None
        taken.add((look.shape, look.colour))
        things.append(Thing(look, *spot, radius, float(rng.uniform(-0.3, 0.3))))
    return Scene(tuple(things))


def _free_spot(
    rng: np.random.Generator, radius: float, things: list[Thing], tries: int = 24
) -> tuple[float, float] | None:
    margin = radius + _GAP
    for _ in range(tries):
        x, y = (float(v) for v in rng.uniform(margin, 1 - margin, 2))
        if all(np.hypot(x - t.x, y - t.y) >= radius + t.radius + _GAP for t in things):
            return x, y
    return None
