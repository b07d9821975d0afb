"""Training batches of the tabletop world: pictures, a true caption and hard negatives for each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from pocketvl.data.tabletop.language import (
    FULL_TEMPLATES,
    SHORT_TELLS,
    SHORT_TEMPLATES,
    Kind,
    Statement,
    canonical,
    falsify,
    holds,
    sample_statement,
)
from pocketvl.data.tabletop.scene import MAX_THINGS, Relation, Scene, clear_pairs
from pocketvl.train.tabletop_pool import VOCABULARIES, Floats, ScenePool, row_of, scene_of
from pocketvl.train.tokenizer import PAD_ID

_SHORT_SHARE = 0.08
_HARDEST = (Kind.BINDING, Kind.RELATION)
_ATTRIBUTE_KINDS: tuple[Kind, ...] = (Kind.SHAPE, Kind.COLOUR, Kind.SIZE, Kind.PATTERN)

ROLES = ("any", *(r.value for r in Relation))
"""What a thing is to a scene or caption: part of it, or the left, right, upper or lower of a related pair."""


@dataclass(frozen=True)
class Batch:
    """What one step of training sees.

    Attributes:
        pixels: uint8 [B, H, W, 3].
        ids: int64 [B * (1 + K), T]: per scene its true caption, then K hard negatives.
        rows: float32 [B, 5, 9]: what stands in each scene (`tabletop_pool.ROW_WIDTH`).
        roles: float32 [B, 5, 5]: per role, how it is shared among the things of the scene; sums to 1 or 0.
        looks: int64 [B * (1 + K), 2, 4]: attribute indices of the one or two things that each text mentions.
        said: float32 [B * (1 + K), 5, 2]: per role, how it is shared among the things mentioned; zero for
            texts that leave attributes out.
    """

    pixels: torch.Tensor
    ids: torch.Tensor
    rows: torch.Tensor
    roles: torch.Tensor
    looks: torch.Tensor
    said: torch.Tensor


Spoken = tuple[str, Statement, bool]
"""A text, what it says, and whether it tells all attributes."""


class TabletopBatches:
    """Batch number n is a function of (seed, n) alone, so that training can stop and go on anywhere."""

    def __init__(
        self, pool: ScenePool, tokenizer: Tokenizer, batch_size: int, negatives: int, seed: int
    ) -> None:
        self._pool, self._tokenizer = pool, tokenizer
        self._batch_size, self._negatives, self._seed = batch_size, negatives, seed

    def __call__(self, step: int) -> Batch:
        rng = np.random.default_rng([self._seed, step])
        chosen = self._indices(step)
        images, rows, roles, spoken = [], [], [], []
        for index in chosen:
            image, scene = self._pool.images[index], scene_of(self._pool.rows[index])
            if rng.random() < 0.5:
                image, scene = image[:, ::-1], scene.mirrored()
            images.append(image)
            rows.append(row_of(scene))
            roles.append(_scene_roles(scene))
            spoken += self._speak(sample_statement(scene, rng), scene, rng)
        encoded = self._tokenizer.encode_batch([text for text, _, _ in spoken])
        longest = max(len(e.ids) for e in encoded)
        return Batch(
            pixels=torch.from_numpy(np.stack(images)),
            ids=torch.tensor([e.ids + [PAD_ID] * (longest - len(e.ids)) for e in encoded]),
            rows=torch.from_numpy(np.stack(rows)),
            roles=torch.from_numpy(np.stack(roles)),
            looks=torch.from_numpy(np.stack([_looks(statement) for _, statement, _ in spoken])),
            said=torch.from_numpy(np.stack([_said(statement) * full for _, statement, full in spoken])),
        )

    def _indices(self, step: int) -> list[int]:
        """Walks through the pool in a new order every time around."""
        size, per_pass = self._batch_size, len(self._pool.images) // self._batch_size
        around, place = divmod(step, per_pass)
        order = np.random.default_rng([self._seed, around, 1]).permutation(len(self._pool.images))
        return sorted(order[place * size : (place + 1) * size].tolist())

    def _speak(self, statement: Statement, scene: Scene, rng: np.random.Generator) -> list[Spoken]:
        """The true caption and its hard negatives, all in the same form."""
        full = rng.random() >= _SHORT_SHARE
        if full:
            template = FULL_TEMPLATES[rng.integers(len(FULL_TEMPLATES))]
            told: tuple[Kind, ...] = _ATTRIBUTE_KINDS
        else:
            template, told = SHORT_TEMPLATES[0], SHORT_TELLS
        kinds = [told[k] for k in rng.permutation(len(told))]
        if statement.second is not None:
            kinds = [*_HARDEST, *kinds]
        false = self._false(statement, scene, rng, kinds, told)
        return [(template(s), s, full) for s in (statement, *false)]

    def _false(
        self,
        statement: Statement,
        scene: Scene,
        rng: np.random.Generator,
        kinds: list[Kind],
        told: tuple[Kind, ...],
    ) -> list[Statement]:
        false: list[Statement] = []
        for attempt in range(8 * self._negatives):
            changed = falsify(statement, kinds[attempt % len(kinds)], scene, rng)
            if changed is not None and not holds(changed, scene, told):
                false.append(changed)
            if len(false) == self._negatives:
                return false
        raise RuntimeError(f"no {self._negatives} hard negatives for {canonical(statement)!r}")


def _looks(statement: Statement) -> npt.NDArray[np.int64]:
    looks = np.zeros((2, len(VOCABULARIES)), np.int64)
    for place, look in enumerate((statement.first, statement.second)):
        if look is not None:
            looks[place] = [v.index(a) for v, a in zip(VOCABULARIES, look, strict=True)]
    return looks


def _said(statement: Statement) -> Floats:
    said = np.zeros((len(ROLES), 2), np.float32)
    if statement.relation is None:
        said[0, 0] = 1.0
    else:
        said[0] = 0.5
        said[ROLES.index(statement.relation), 0] = 1.0
        said[ROLES.index(statement.relation.reverse), 1] = 1.0
    return said


def _scene_roles(scene: Scene) -> Floats:
    roles = np.zeros((len(ROLES), MAX_THINGS), np.float32)
    roles[0, : len(scene.things)] = 1.0
    for first, _, relation in clear_pairs(scene):
        roles[ROLES.index(relation), scene.things.index(first)] += 1.0
    shared: Floats = roles / np.maximum(roles.sum(axis=1, keepdims=True), np.float32(1))
    return shared
