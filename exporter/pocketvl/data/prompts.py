"""Labels as texts: each in a template."""

from __future__ import annotations

from pocketvl.data.dataset import Dataset, Sample
from pocketvl.errors import DataError
from pocketvl_runtime.manifest.tasks import LABEL_SLOT
from pocketvl_runtime.tasks import label_texts

DEFAULT_TEMPLATE = "a photo of a {label}"


def label_prompts(dataset: Dataset, template: str = DEFAULT_TEMPLATE) -> dict[str, str]:
    """The dataset's labels, sorted, each with the text that stands for it.

    Raises:
        DataError: the template has no `{label}` in it.
    """
    if LABEL_SLOT not in template:
        raise DataError(f"the label template {template!r} has no {{label}} in it")
    labels = sorted({sample.label for sample in dataset.samples if sample.label is not None})
    return dict(zip(labels, label_texts(template, labels), strict=True))


def caption_of(sample: Sample) -> str | None:
    """The text that tells a sample from others: its first caption, or else its label in the template."""
    if sample.captions:
        return sample.captions[0]
    return None if sample.label is None else label_texts(DEFAULT_TEMPLATE, [sample.label])[0]
