"""Training batches of the tabletop world: pictures, a true caption and hard negatives for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer

from pocketvl.errors import TrainingError
from pocketvl.tabletop.language import (
    FULL_FORMS,
    LABEL_FORM,
    SHORT_FORM,
    Form,
    Kind,
    Statement,
    canonical,
    changes,
    holds,
    sample_statement,
)
from pocketvl.tabletop.pool import VOCABULARIES, ScenePool, row_of, scene_of
from pocketvl.tabletop.scene import Look, Relation, Scene
from pocketvl.tabletop.tokenizer import PAD_ID

_SHORT_SHARE, _LABEL_SHARE = 0.08, 0.04
_HARDEST = (Kind.BINDING, Kind.RELATION)
_ATTRIBUTES = tuple(Kind(name) for name in Look._fields)  # in the order of VOCABULARIES


@dataclass(frozen=True)
class Batch:
    """What one step of training sees.

    Attributes:
        pixels: uint8 [B, H, W, 3].
        ids: int64 [B * (1 + K), T]: per scene its true caption, then K hard negatives.
        rows: float32 [B, 5, 9]: what stands in each scene (`tabletop_pool.ROW_WIDTH`).
        statements: int64 [B * (1 + K), 9]: what each text says; four attributes of the first thing, four of
            the second, the relation. All count from 1; 0 means that the text does not say.
    """

    pixels: torch.Tensor
    ids: torch.Tensor
    rows: torch.Tensor
    statements: torch.Tensor


class TabletopBatches:
    """Batch number n is a function of (seed, n) alone, so that training can stop and go on anywhere."""

    def __init__(
        self, pool: ScenePool, tokenizer: Tokenizer, batch_size: int, negatives: int, seed: int
    ) -> None:
        self._pool, self._tokenizer = pool, tokenizer
        self._batch_size, self._negatives, self._seed = batch_size, negatives, seed
        if len(pool.images) < batch_size:
            raise TrainingError(f"{len(pool.images)} scenes are too few for a batch of {batch_size}")

    def __call__(self, step: int) -> Batch:
        rng = np.random.default_rng([self._seed, step])
        images, rows, texts, statements = [], [], [], []
        for index in self._indices(step):
            image, scene = self._pool.images[index], scene_of(self._pool.rows[index])
            if rng.random() < 0.5:
                image, scene = image[:, ::-1], scene.mirrored()
            images.append(image)
            rows.append(row_of(scene))
            form, spoken = self._speak(scene, rng)
            texts += [form.write(statement) for statement in spoken]
            statements += [statement_row(statement, form.tells) for statement in spoken]
        encoded = self._tokenizer.encode_batch(texts)
        longest = max(len(e.ids) for e in encoded)
        return Batch(
            pixels=torch.from_numpy(np.stack(images)),
            ids=torch.tensor([e.ids + [PAD_ID] * (longest - len(e.ids)) for e in encoded]),
            rows=torch.from_numpy(np.stack(rows)),
            statements=torch.tensor(statements),
        )

    def _indices(self, step: int) -> list[int]:
        """Indices of a step's scenes; a new order in every epoch."""
        size, per_pass = self._batch_size, len(self._pool.images) // self._batch_size
        epoch, index = divmod(step, per_pass)
        order = np.random.default_rng([self._seed, epoch, 1]).permutation(len(self._pool.images))
        return sorted(order[index * size : (index + 1) * size].tolist())

    def _speak(self, scene: Scene, rng: np.random.Generator) -> tuple[Form, list[Statement]]:
        """A form of words, and what is said in it: one true statement, then the hard negatives."""
        statement = sample_statement(scene, rng)
        drawn = rng.random()
        if drawn < _LABEL_SHARE:
            form, statement = LABEL_FORM, Statement(statement.first)
        elif drawn < _LABEL_SHARE + _SHORT_SHARE:
            form = SHORT_FORM
        else:
            form = FULL_FORMS[rng.integers(len(FULL_FORMS))]
        return form, [statement, *self._false(statement, scene, form.tells, rng)]

    def _false(
        self, statement: Statement, scene: Scene, tells: Sequence[Kind], rng: np.random.Generator
    ) -> list[Statement]:
        """Hard negatives, kind by kind, the hardest kinds first; a kind can come again."""
        kinds = [tells[k] for k in rng.permutation(len(tells))]
        if statement.second is not None:
            kinds = [*_HARDEST, *kinds]
        false: list[Statement] = []
        for attempt in range(16 * self._negatives):
            candidates = changes(statement, kinds[attempt % len(kinds)])
            if not candidates:
                continue
            changed = candidates[rng.integers(len(candidates))]
            if not holds(changed, scene, tells):
                false.append(changed)
            if len(false) == self._negatives:
                return false
        raise RuntimeError(f"no {self._negatives} hard negatives for {canonical(statement)!r}")


def statement_row(statement: Statement, tells: Sequence[Kind]) -> list[int]:
    """What a text says that mentions only the attributes in `tells`, as in `Batch.statements`."""
    row = []
    for look in (statement.first, statement.second):
        for kind, values in zip(_ATTRIBUTES, VOCABULARIES, strict=True):
            is_known = look is not None and kind in tells
            row.append(1 + values.index(getattr(look, kind.value)) if is_known else 0)
    relations = list(Relation)
    row.append(0 if statement.relation is None else 1 + relations.index(statement.relation))
    return row
