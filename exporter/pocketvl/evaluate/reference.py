"""What torch in fp32 makes of a dataset: the reference that every variant is held against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from pocketvl.data.dataset import Dataset
from pocketvl.errors import DataError
from pocketvl.evaluate.embeddings import Embeddings
from pocketvl.families.checkpoint import Checkpoint
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.progress import Progress
from pocketvl_runtime.text import Tokenizer

_BATCH = 64


def embed_reference(
    source: Checkpoint, dataset: Dataset, texts: Sequence[str], progress: Progress | None = None
) -> Embeddings:
    """Embeds every picture of a dataset, and the texts, with the checkpoint itself.

    Pixels and ids come from the runtime's own code, so that what is compared later is the graphs alone.

    Args:
        source: the opened checkpoint.
        dataset: its pictures are read in order.
        texts: distinct texts.
        progress: told after every batch.

    Raises:
        DataError: there are no texts.
        InputError: a picture or a text cannot be used.
    """
    if not texts:
        raise DataError(f"{dataset.root}: there are no texts to embed; give the samples captions or labels")
    tokenizer = Tokenizer(source.tokenizer_json, source.tokenizer)
    total = len(dataset) + len(texts)
    head = source.contract.contrastive_head
    image, text = (source.tower(port.partition(".")[0]) for port in (head.first, head.second))
    rows: list[torch.Tensor] = []
    with torch.inference_mode():
        for start in range(0, len(dataset), _BATCH):
            chosen = dataset.samples[start : start + _BATCH]
            pixels = np.stack([preprocess(open_image(s.image), source.preprocess) for s in chosen])
            rows.append(image(torch.from_numpy(pixels)))
            if progress is not None:
                progress(min(start + _BATCH, len(dataset)), total, "embedding in torch")
        images = torch.cat(rows).numpy()
        rows = []
        for start in range(0, len(texts), _BATCH):
            ids = tokenizer.encode(list(texts[start : start + _BATCH])).ids
            rows.append(text(torch.from_numpy(ids)))
            if progress is not None:
                progress(len(dataset) + min(start + _BATCH, len(texts)), total, "embedding in torch")
    return Embeddings(images, torch.cat(rows).numpy(), tuple(texts))
