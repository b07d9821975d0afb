"""Labels as texts: each in a template."""

from __future__ import annotations

from pocketvl.data.dataset import Dataset, Sample
from pocketvl_runtime.tasks import label_texts


def label_prompts(dataset: Dataset, template: str | None = None) -> dict[str, str]:
    """The dataset's labels, sorted, each with the text that stands for it.

    Args:
        dataset: whose samples have the labels.
        template: by default the dataset's first.
    """
    labels = sorted({sample.label for sample in dataset.samples if sample.label is not None})
    return dict(zip(labels, label_texts(template or dataset.templates[0], labels), strict=True))


def caption_of(dataset: Dataset, sample: Sample) -> str | None:
    """The text that tells a sample from others: its first caption, or its label in the first template."""
    if sample.captions:
        return sample.captions[0]
    return None if sample.label is None else label_texts(dataset.templates[0], [sample.label])[0]
