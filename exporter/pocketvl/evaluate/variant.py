"""What a variant of a bundle makes of a dataset, through the runtime, one by one, as on the device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pocketvl.data.dataset import Dataset
from pocketvl.errors import DataError
from pocketvl.evaluate.embeddings import Embeddings
from pocketvl_runtime.model import load
from pocketvl_runtime.progress import Progress

_TELL_EVERY = 50


def embed_variant(
    bundle: Path, variant: str, dataset: Dataset, texts: Sequence[str], progress: Progress | None = None
) -> Embeddings:
    """Embeds every picture of a dataset, and the texts, with one variant; NaN and infinity are kept as such.

    Args:
        bundle: the bundle's folder.
        variant: the variant's name.
        dataset: its pictures are read in order.
        texts: distinct texts.
        progress: told after every 50 inputs.

    Raises:
        DataError: there are no texts.
        PocketVLError: the bundle cannot be loaded, or an input cannot be used.
    """
    if not texts:
        raise DataError(f"{dataset.root}: there are no texts to embed; give the samples captions or labels")
    model = load(bundle, variant, allow_non_finite=True)
    total = len(dataset) + len(texts)

    def tell(done: int) -> None:
        if progress is not None and (done % _TELL_EVERY == 0 or done == total):
            progress(done, total, f"embedding with {variant}")

    images, rows = [], []
    for done, sample in enumerate(dataset.samples, start=1):
        images.append(model.embed_image(sample.image))
        tell(done)
    encoding = model.tokenizer.encode(list(texts))
    for done, (ids, mask) in enumerate(zip(encoding.ids, encoding.mask, strict=True), start=len(dataset) + 1):
        rows.append(model.embed_ids(ids, mask))
        tell(done)
    return Embeddings(np.stack(images), np.stack(rows), tuple(texts))
