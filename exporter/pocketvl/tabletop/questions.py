"""Questions about a pool of tabletop scenes, asked once, and the batches that training makes of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from pocketvl.errors import RecipeError, TrainingError
from pocketvl.launch import worker_processes
from pocketvl.settings import Settings, Weight
from pocketvl.tabletop.language import ANSWERS, questions
from pocketvl.tabletop.pool import Floats, ScenePool, scene_of
from pocketvl.tabletop.scene import COLOURS, SHAPES, Relation
from pocketvl.tabletop.tokenizer import PAD_ID
from pocketvl_runtime.progress import Progress

_CHUNK = 2000
_MIRRORED = {Relation.LEFT.value: Relation.RIGHT.value, Relation.RIGHT.value: Relation.LEFT.value}

_Asked = tuple[list[str], NDArray[np.int32]]


@dataclass(frozen=True)
class QuestionMix(Settings):
    """How often each type of question comes up, as weights: with equal ones, all alike."""

    colour: Weight = 1.0
    shape: Weight = 1.0
    count: Weight = 1.0
    existence: Weight = 1.0
    relation: Weight = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not any(vars(self).values()):
            raise RecipeError("mix: all weights are 0: no question would be asked")


QUESTION_TYPES = tuple(each.name for each in fields(QuestionMix))


@dataclass(frozen=True, eq=False)
class Questions:
    """What was asked about a pool's scenes.

    Attributes:
        texts: the different questions.
        asked: int32 [M, 4], one row a question about a scene: the scene, the index in `texts`, that of the
            answer in `ANSWERS`, that of its type in `QUESTION_TYPES`.
    """

    texts: tuple[str, ...]
    asked: NDArray[np.int32]


def ask(
    rows: Floats, seed: int, rounds: int, progress: Progress | None = None, workers: int = 1
) -> Questions:
    """Asks a question of every type about every scene, some times over.

    Args:
        rows: float32 [N, 5, 9], the scenes, as in `ScenePool`.
        seed: of what is asked.
        rounds: how often; what comes up twice is there twice.
        progress: called with scenes done and in all.
        workers: processes.
    """
    starts = range(0, len(rows), _CHUNK)
    chunks = ((start, np.array(rows[start : start + _CHUNK])) for start in starts)
    work = partial(_ask_chunk, seed, rounds)
    if workers == 1 or len(starts) == 1:
        return _merged(map(work, chunks), len(rows), progress)
    with worker_processes(workers) as processes:
        return _merged(processes.imap(work, chunks), len(rows), progress)


def mentions(question: str) -> list[int]:
    """The shape and the colour of the first thing that a question is about, and of the second.

    Returns:
        Four numbers, shape, colour, shape, colour, that count from 1; 0 means unspecified.
    """
    found: list[list[int]] = []
    for word in re.findall("[a-z]+", question):
        if word in COLOURS:
            found.append([0, 1 + COLOURS.index(word)])
        elif word in SHAPES:
            if not found or found[-1][0]:
                found.append([0, 0])
            found[-1][0] = 1 + SHAPES.index(word)
    first, second, *_ = [*found, [0, 0], [0, 0]]
    return [*first, *second]


@dataclass(frozen=True)
class AnswerBatch:
    """What one step of training sees.

    Attributes:
        pixels: uint8 [B, H, W, 3], as they are in the pool.
        mirrored: bool [B], whether to turn left and right round; all else is said of the picture thereafter.
        ids: int64 [B, T], the questions.
        answers: int64 [B], indices in `ANSWERS`.
        rows: float32 [B, 5, 9]: what stands in each scene (`tabletop_pool.ROW_WIDTH`).
        mentions: int64 [B, 4]: what each question is about, as `mentions` says it.
    """

    pixels: torch.Tensor
    mirrored: torch.Tensor
    ids: torch.Tensor
    answers: torch.Tensor
    rows: torch.Tensor
    mentions: torch.Tensor


class AnswerBatches:
    """Batch number n is a function of (seed, n) alone.

    Types of questions come up as `mix` says, and within a type an answer by the square root of how often it
    is right, so that the most frequent one is right less often than it would be.
    """

    def __init__(
        self,
        pool: ScenePool,
        questions: Questions,
        tokenizer: Tokenizer,
        length: int,
        batch_size: int,
        seed: int,
        mix: QuestionMix = QuestionMix(),
    ) -> None:
        """Args: questions: about the pool's scenes. length: T; no question may have more tokens.

        `ids`, int64 [texts, T], are those of all different questions.

        Raises:
            TrainingError: a question is longer than T.
        """
        self._pool, self._batch_size, self._seed = pool, batch_size, seed
        encoded = [each.ids for each in tokenizer.encode_batch(list(questions.texts))]
        longest = max(map(len, encoded))
        if longest > length:
            raise TrainingError(f"a question has {longest} tokens, and the model reads {length}: text_length")
        self.ids = np.full((len(encoded), length), PAD_ID, np.int64)
        for row, ids in zip(self.ids, encoded, strict=True):
            row[: len(ids)] = ids
        self._mentions = np.array([mentions(text) for text in questions.texts], np.int64)
        self._swapped = np.array([ANSWERS.index(_MIRRORED.get(a, a)) for a in ANSWERS], np.int64)
        group = questions.asked[:, 3] * len(ANSWERS) + questions.asked[:, 2]
        self._asked = questions.asked[np.argsort(group, kind="stable")]
        found, self._sizes = np.unique(group, return_counts=True)
        self._starts = np.cumsum(self._sizes) - self._sizes
        kinds, roots = found // len(ANSWERS), np.sqrt(self._sizes)
        share = roots / np.bincount(kinds, roots)[kinds] * np.array(astuple(mix))[kinds]
        self._chances = share / share.sum()

    def __call__(self, step: int) -> AnswerBatch:
        rng = np.random.default_rng([self._seed, step])
        groups = rng.choice(len(self._chances), self._batch_size, p=self._chances)
        indices = self._starts[groups] + (rng.random(self._batch_size) * self._sizes[groups]).astype(np.int64)
        chosen = self._asked[indices]
        chosen = chosen[np.argsort(chosen[:, 0], kind="stable")]  # a memmap is read in order
        scenes, texts, answers = (chosen[:, k].astype(np.int64) for k in range(3))
        mirrored = rng.random(self._batch_size) < 0.5
        rows = np.asarray(self._pool.rows[scenes])
        rows[mirrored, :, 4] = 1 - rows[mirrored, :, 4]
        return AnswerBatch(
            pixels=torch.from_numpy(np.asarray(self._pool.images[scenes])),
            mirrored=torch.from_numpy(mirrored),
            ids=torch.from_numpy(self.ids[texts]),
            answers=torch.from_numpy(np.where(mirrored, self._swapped[answers], answers)),
            rows=torch.from_numpy(rows),
            mentions=torch.from_numpy(self._mentions[texts]),
        )


def _ask_chunk(seed: int, rounds: int, chunk: tuple[int, Floats]) -> _Asked:
    """The different questions about some scenes, and the rows of `Questions.asked` by their indices there."""
    start, rows = chunk
    texts: dict[str, int] = {}
    asked = []
    for index, row in enumerate(rows, start=start):
        scene = scene_of(row)
        for turn in range(rounds):
            for qa in questions(scene, np.random.default_rng([seed, index, turn])):
                text = texts.setdefault(qa["question"], len(texts))
                asked.append((index, text, ANSWERS.index(qa["answer"]), QUESTION_TYPES.index(qa["type"])))
    return list(texts), np.array(asked, np.int32)


def _merged(results: Iterable[_Asked], scenes: int, progress: Progress | None) -> Questions:
    texts: dict[str, int] = {}
    parts = []
    for done, (own, asked) in enumerate(results, start=1):
        indices = np.array([texts.setdefault(text, len(texts)) for text in own], np.int32)
        asked[:, 1] = indices[asked[:, 1]]
        parts.append(asked)
        if progress is not None:
            progress(min(done * _CHUNK, scenes), scenes, "asking questions")
    return Questions(tuple(texts), np.concatenate(parts))
