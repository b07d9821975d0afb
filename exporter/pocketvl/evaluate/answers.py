"""How often a model that answers questions is right, on a dataset folder's own questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pocketvl.data.dataset import Dataset, questions_of
from pocketvl.errors import DataError
from pocketvl.evaluate.statistics import wilson_interval
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.train.questions import answer_logits
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.progress import Progress
from pocketvl_runtime.text import Tokenizer

_UNTYPED = "other"


@dataclass(frozen=True)
class AnswerRate:
    """How often answers are right.

    Attributes:
        n: questions.
        accuracy: the part that is answered rightly.
        ci95: Wilson's interval of that.
        constant: the part that is, where the same answer is given to all questions of a type: that which is
            right most often.
    """

    n: int
    accuracy: float
    ci95: tuple[float, float]
    constant: float


@dataclass(frozen=True, eq=False)
class AnswerAccuracy:
    """What a model answers.

    Attributes:
        overall: over all questions.
        by_type: of each type of question; of "other" where the data says none.
        correct: bool [n], in the order of the data, so that two models can be compared question by question.
    """

    overall: AnswerRate
    by_type: Mapping[str, AnswerRate]
    correct: NDArray[np.bool_]


def answer_accuracy(
    checkpoint: Checkpoint, dataset: Dataset, batch: int = 64, progress: Progress | None = None
) -> AnswerAccuracy:
    """Asks a model all questions of a dataset.

    Args:
        checkpoint: on the CPU; its tower is put in eval mode.
        dataset: of pictures with `qa`. An answer that the model does not know cannot be given, and counts as
            missed.
        batch: questions at a time.
        progress: told questions done and in all.

    Raises:
        DataError: there are no questions.
    """
    asked = questions_of(dataset)
    if not asked:
        raise DataError(f"{dataset.root}: no sample has questions and answers (qa)")
    places = sorted({each.sample for each in asked})
    images = np.stack(
        [preprocess(open_image(dataset.samples[place].image), checkpoint.preprocess) for place in places]
    )
    tokenizer = Tokenizer(checkpoint.tokenizer_json, checkpoint.tokenizer)
    ids = tokenizer.encode([each.text for each in asked]).ids
    pictures = np.searchsorted(places, [each.sample for each in asked])
    labels = checkpoint.contract.label_head.labels
    tower = checkpoint.tower(checkpoint.contract.label_head.component).train(False)
    logits = answer_logits(tower, images, ids, pictures, batch, progress)
    given = [labels[best] for best in logits.argmax(-1)]
    right = [each.answer for each in asked]
    correct = np.array([a == b for a, b in zip(given, right, strict=True)])
    types = [each.type or _UNTYPED for each in asked]
    by_type = {}
    for kind in sorted(set(types)):
        chosen = [place for place, own in enumerate(types) if own == kind]
        by_type[kind] = _rate(correct[chosen], [right[place] for place in chosen])
    constant = sum(rate.constant * rate.n for rate in by_type.values()) / len(asked)
    low_high = wilson_interval(int(correct.sum()), len(correct))
    overall = AnswerRate(len(correct), float(correct.mean()), low_high, constant)
    return AnswerAccuracy(overall, by_type, correct)


def _rate(correct: NDArray[np.bool_], right: Sequence[str]) -> AnswerRate:
    most = Counter(right).most_common(1)[0][1]
    interval = wilson_interval(int(correct.sum()), len(correct))
    return AnswerRate(len(correct), float(correct.mean()), interval, most / len(correct))
