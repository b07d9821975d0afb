"""Images and texts that are read together: which of a dataset, and whether they fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pocketvl.data.dataset import Dataset
from pocketvl.data.prompts import label_prompts
from pocketvl.errors import DataError
from pocketvl.tasks.base import Runner, run_feed
from pocketvl.tasks.contrastive_metrics import above_negatives
from pocketvl.tasks.encoding import Array
from pocketvl.tasks.metrics import Metric, TaskOutcome
from pocketvl.tasks.outputs import component_of
from pocketvl_runtime.manifest import Activation


@dataclass(frozen=True)
class Pair:
    """An image or sound and a text.

    Attributes:
        sample: the index of the sample whose image it is.
        text: its own, or one that does not fit.
    """

    sample: int
    text: str


def pairs_of(dataset: Dataset) -> tuple[Pair, ...]:
    """Each sample with its first caption and its negatives, sample by sample.

    Where a sample has no caption, its label stands in the template; where it has no negatives, the next other
    sample's text is one. Samples without a text are left out.
    """
    prompts = label_prompts(dataset)
    own = {
        index: sample.captions[0] if sample.captions else prompts[sample.label or ""]
        for index, sample in enumerate(dataset.samples)
        if sample.captions or sample.label is not None
    }
    indexes, found = list(own), []
    for place, index in enumerate(indexes):
        others = dataset.samples[index].negatives
        if not others:
            after = (own[each] for each in (*indexes[place + 1 :], *indexes[:place]))
            others = tuple(next(([text] for text in after if text != own[index]), ()))
        found += [Pair(index, text) for text in dict.fromkeys((own[index], *others))]
    return tuple(found)


def match_logits(
    runner: Runner, port: str, hidden: Array, rows: Sequence[int], texts: Sequence[str]
) -> NDArray[np.float32]:
    """The logits of pairs, float32 [N, logits].

    Args:
        runner: the model.
        port: of the logits, "fusion.logits".
        hidden: what the component before gives of images or sounds, [images, ...].
        rows: of each pair, the row of `hidden`.
        texts: of each pair.
    """
    taken = np.asarray(rows)
    feed = runner.encoder.feed(component_of(port), texts=texts, hidden=lambda a, b: hidden[taken[a:b]])
    return run_feed(runner, feed)[port]


def log_odds(logits: NDArray[np.float32], positive_index: int, activation: Activation) -> NDArray[np.float64]:
    """What grows as the probability of the positive logit does, float64 [N], of logits [N, logits].

    Probabilities near 1 lie too close to each other to be compared.
    """
    wide = logits.astype(np.float64)
    if activation is Activation.SIGMOID:
        return np.asarray(wide[:, positive_index])
    others = np.delete(wide, positive_index, axis=1)
    return np.asarray(wide[:, positive_index] - np.logaddexp.reduce(others, axis=1))


def itm_hard(dataset: Dataset, odds: NDArray[np.float64]) -> TaskOutcome:
    """Is a sample's first caption likelier to fit than all of its negatives?

    Args:
        dataset: the samples.
        odds: float64 [N], of the pairs of `pairs_of`.

    Raises:
        DataError: they are not this dataset's.
    """
    pairs = pairs_of(dataset)
    if len(pairs) != len(odds):
        raise DataError(
            f"{len(odds)} pairs matched where {dataset.root} has {len(pairs)}; run the model on it again"
        )
    row = {pair: index for index, pair in enumerate(pairs)}

    def scores(index: int, texts: tuple[str, ...]) -> NDArray[np.float64]:
        return odds[[row[Pair(index, text)] for text in texts]]

    return above_negatives(dataset, Metric.ITM_HARD, scores)
