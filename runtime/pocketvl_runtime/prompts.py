"""Prompt ensembles: a label in several templates, as one embedding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketvl_runtime.errors import InputError, quoted
from pocketvl_runtime.files import read_file
from pocketvl_runtime.manifest.tasks import LABEL_SLOT
from pocketvl_runtime.text import check_texts

MAX_TEMPLATES = 1_000
_MAX_BYTES = 1_000_000


def check_templates(templates: Sequence[str]) -> None:
    """Raise InputError where templates are none, too many, or one has no `{label}` in it."""
    check_texts(templates, "template")
    if not 1 <= len(templates) <= MAX_TEMPLATES:
        raise InputError(f"{len(templates)} templates are given, and 1 to {MAX_TEMPLATES} are taken")
    for template in templates:
        if LABEL_SLOT not in template:
            raise InputError(f"the template {quoted(template)} has no {LABEL_SLOT} in it")


def read_templates(path: Path) -> tuple[str, ...]:
    """Templates of a UTF-8 text file, one a line; each once, empty lines left out.

    Raises:
        InputError: the file cannot be read, or one is no template.
    """
    try:
        text = read_file(path, _MAX_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    templates = tuple(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    try:
        check_templates(templates)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return templates


def ensembled(rows: npt.NDArray[np.floating], templates: int) -> npt.NDArray[np.floating]:
    """The embeddings of labels: the mean over templates, L2-normalised again.

    Args:
        rows: [T * L, D], L2-normalised: all labels in the first template, then in the second, and so on.
        templates: T; for one, the rows are the answer as they are.

    Returns:
        [L, D]; of several templates float64.

    Source: Radford et al. 2021 (arXiv 2103.00020), section 3.1.4.
    """
    if templates == 1:
        return rows
    mean = rows.astype(np.float64).reshape(templates, -1, rows.shape[1]).mean(axis=0)  # [L, D]
    length = np.linalg.norm(mean, axis=1, keepdims=True)
    return np.asarray(mean / np.maximum(length, np.finfo(np.float64).tiny))
