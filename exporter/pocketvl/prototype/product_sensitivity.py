"""Quantization sensitivity of attention's products: each alone, measured on the module's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pocketvl.errors import DataError
from pocketvl.families.layers.segments import Segments
from pocketvl.network.integers import QuantizedProduct
from pocketvl.quantize.products import Feed, check_names, multiplied, on_grids, run
from pocketvl.quantize.sensitivity import embedding_loss
from pocketvl_runtime.progress import Progress


def product_sensitivity(
    module: nn.Module,
    feeds: Sequence[Feed],
    products: Mapping[str, QuantizedProduct],
    segments: Segments | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """The loss of the module's outputs with one product quantized and everything else in float.

    Args:
        module: in eval mode; left as it is. Its output is [B, ...].
        feeds: of two samples or more, run once for each product and once without any.
        products: by their names, or their blocks'.
        segments: of the sequence, where blocks are among them.
        progress: called after each product.

    Returns:
        By name, 1 - the median over samples of the cosine between the float answer and the other one, both
        less the mean float answer: 0 is no loss.

    Raises:
        DataError: fewer than two samples, or a product that the module does not have.
    """
    check_names(module, products, segments)
    plain = _answers(module, feeds)
    if len(plain) < 2:
        raise DataError(f"sensitivity takes the samples' mean off, and needs two or more, not {len(plain)}")
    losses = {}
    for done, (name, product) in enumerate(products.items(), 1):
        with multiplied(module, on_grids({name: product}, segments)):
            losses[name] = embedding_loss(plain, _answers(module, feeds)).cosine
        if progress is not None:
            progress(done, len(products), "sensitivity of products")
    return losses


def products_to_quantize(sensitivities: Mapping[str, float], limit: float = 0.0) -> tuple[str, ...]:
    """The products that each lose less than a limit; with the default all stay in float."""
    return tuple(name for name, loss in sensitivities.items() if loss < limit)


def _answers(module: nn.Module, feeds: Sequence[Feed]) -> NDArray[np.float64]:
    """[samples, features]"""
    with torch.inference_mode():
        rows = [run(module, feed).flatten(1).double().numpy() for feed in feeds]
    return np.concatenate(rows) if rows else np.empty((0, 1))
