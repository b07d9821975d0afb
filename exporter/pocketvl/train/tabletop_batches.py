"""Training batches of the tabletop world: pictures, a true caption and hard negatives for each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer

from pocketvl.data.tabletop.language import (
    FULL_TEMPLATES,
    SHORT_TELLS,
    SHORT_TEMPLATES,
    Kind,
    Statement,
    Template,
    canonical,
    falsify,
    holds,
    sample_statement,
)
from pocketvl.data.tabletop.scene import Relation, Scene
from pocketvl.train.tabletop_pool import VOCABULARIES, ScenePool, row_of, scene_of
from pocketvl.train.tokenizer import PAD_ID

_SHORT_SHARE = 0.08
_HARDEST = (Kind.BINDING, Kind.RELATION)
_ATTRIBUTE_KINDS = (Kind.SHAPE, Kind.COLOUR, Kind.SIZE, Kind.PATTERN)
_AXIS = {Relation.LEFT: (0, -1.0), Relation.RIGHT: (0, 1.0), Relation.ABOVE: (1, -1.0), Relation.BELOW: (1, 1.0)}


@dataclass(frozen=True)
class Batch:
    """What one step of training sees.

    Attributes:
        pixels: uint8 [B, H, W, 3].
        ids: int64 [B * (1 + K), T]: per scene its true caption, then K hard negatives.
        rows: float32 [B, 5, 9]: what stands in each scene (`tabletop_pool.ROW_WIDTH`).
        looks: int64 [B, 2, 4]: attribute indices of the one or two things the caption mentions.
        mentioned: bool [B, 2].
        axis: int64 [B]: 0 where the caption's relation is horizontal, 1 vertical.
        side: float32 [B]: +1 where the first thing has the larger coordinate, -1 the smaller, 0 without relation.
    """

    pixels: torch.Tensor
    ids: torch.Tensor
    rows: torch.Tensor
    looks: torch.Tensor
    mentioned: torch.Tensor
    axis: torch.Tensor
    side: torch.Tensor


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
        images, rows, texts, statements = [], [], [], []
        for index in chosen:
            image, scene = self._pool.images[index], scene_of(self._pool.rows[index])
            if rng.random() < 0.5:
                image, scene = image[:, ::-1], scene.mirrored()
            statement = sample_statement(scene, rng)
            images.append(image)
            rows.append(row_of(scene))
            texts += self._words(statement, scene, rng)
            statements.append(statement)
        encoded = self._tokenizer.encode_batch(texts)
        longest = max(len(e.ids) for e in encoded)
        ids = [e.ids + [PAD_ID] * (longest - len(e.ids)) for e in encoded]
        looks, mentioned, axis, side = _targets(statements)
        return Batch(
            pixels=torch.from_numpy(np.stack(images)),
            ids=torch.tensor(ids),
            rows=torch.from_numpy(np.stack(rows)),
            looks=looks,
            mentioned=mentioned,
            axis=axis,
            side=side,
        )

    def _indices(self, step: int) -> list[int]:
        """Walks through the pool in a new order every time around."""
        size, per_pass = self._batch_size, len(self._pool.images) // self._batch_size
        around, place = divmod(step, per_pass)
        order = np.random.default_rng([self._seed, around, 1]).permutation(len(self._pool.images))
        return sorted(order[place * size : (place + 1) * size].tolist())

    def _words(self, statement: Statement, scene: Scene, rng: np.random.Generator) -> list[str]:
        if rng.random() < _SHORT_SHARE:
            template = SHORT_TEMPLATES[0]
            told, kinds = SHORT_TELLS, [Kind.SHAPE, Kind.COLOUR]
        else:
            template = FULL_TEMPLATES[rng.integers(len(FULL_TEMPLATES))]
            told = _ATTRIBUTE_KINDS
            kinds = [_ATTRIBUTE_KINDS[k] for k in rng.permutation(4)]
        if statement.second is not None:
            kinds = [*_HARDEST, *kinds]
        false = self._false(statement, scene, rng, kinds, told, template)
        return [template(statement), *false]

    def _false(
        self,
        statement: Statement,
        scene: Scene,
        rng: np.random.Generator,
        kinds: list[Kind],
        told: tuple[Kind, ...],
        template: Template,
    ) -> list[str]:
        false: list[str] = []
        for attempt in range(4 * self._negatives):
            changed = falsify(statement, kinds[attempt % len(kinds)], scene, rng)
            if changed is not None and (len(told) == 4 or not holds(changed, scene, told)):
                false.append(template(changed))
            if len(false) == self._negatives:
                return false
        raise RuntimeError(f"no {self._negatives} hard negatives for {canonical(statement)!r}")


def _targets(
    statements: list[Statement],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    looks = np.zeros((len(statements), 2, 4), np.int64)
    mentioned = np.zeros((len(statements), 2), np.bool_)
    axis = np.zeros(len(statements), np.int64)
    side = np.zeros(len(statements), np.float32)
    for k, statement in enumerate(statements):
        for place, look in enumerate((statement.first, statement.second)):
            if look is not None:
                looks[k, place] = [v.index(a) for v, a in zip(VOCABULARIES, look, strict=True)]
                mentioned[k, place] = True
        if statement.relation is not None:
            axis[k], side[k] = _AXIS[statement.relation]
    return torch.from_numpy(looks), torch.from_numpy(mentioned), torch.from_numpy(axis), torch.from_numpy(side)
