"""Does this machine give the answers that the bundle promises?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BackendError, BundleError
from pocketvl_runtime.golden import Golden, GoldenImage, GoldenText
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.manifest import Role
from pocketvl_runtime.model import Model, load
from pocketvl_runtime.text import Tokenizer

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class SelftestReport:
    """What was checked, and one line for everything that did not hold."""

    files: int
    images: int
    texts: int
    variants: tuple[str, ...]
    failures: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether everything held."""
        return not self.failures


def selftest(
    bundle: Bundle,
    variants: Sequence[str],
    progress: Progress | None = None,
    threads: int | None = None,
) -> SelftestReport:
    """Checks every file's checksum, and the golden pack's pixels, ids and embeddings.

    Args:
        bundle: opened.
        variants: whose embeddings are checked.
        progress: told after every variant.
        threads: for one inference; default: what `load` takes.

    Raises:
        BundleError: a file is damaged, or there is no such variant. What fails in one variant, its engine
            included, is in the report, and the others are checked all the same.
        InputError: there are no such numbers of threads.
    """
    for name in variants:
        bundle.variant(name)
    files = bundle.verify()
    golden = bundle.golden()
    failures = [*_empty(golden), *_preprocessing(bundle, golden)]
    notes: dict[str, None] = {}
    for number, name in enumerate(variants, start=1):
        try:
            model = load(bundle, name, threads)
            notes.update(dict.fromkeys(model.notes))
            failures += _embeddings(model, golden)
        except (BackendError, BundleError) as error:
            failures.append(f"{name}: {error}")
        if progress is not None:
            progress(number, len(variants), name)
    return SelftestReport(
        files, len(golden.images), len(golden.texts), tuple(variants), tuple(failures), tuple(notes)
    )


def _empty(golden: Golden) -> list[str]:
    kinds = {"picture": golden.images, "text": golden.texts}
    return [f"the golden pack has no {kind} to check" for kind, held in kinds.items() if not held]


def _preprocessing(bundle: Bundle, golden: Golden) -> list[str]:
    tokenizer = Tokenizer(bundle.read(bundle.manifest.tokenizer.file), bundle.manifest.tokenizer)
    failures = []
    for image in golden.images:
        expected = np.asarray(open_image(bundle.file(image.pixels)))
        got = preprocess(open_image(bundle.file(image.file)), bundle.manifest.preprocess)
        if expected.shape != got.shape:
            failures.append(f"{image.file}: pixels {list(got.shape)}, expected {list(expected.shape)}")
        elif not np.array_equal(expected, got):
            worst = int(np.abs(expected.astype(int) - got).max())
            failures.append(f"{image.file}: the pixels differ by up to {worst} grey levels")
    for index, text in enumerate(golden.texts):
        ids = tuple(int(i) for i in tokenizer.encode([text.text]).ids[0])
        if ids != text.ids:
            failures.append(f"golden text {index}: the token ids differ")
    return failures


def _embeddings(model: Model, golden: Golden) -> list[str]:
    failures = []
    for image in golden.images:
        got = model.embed_image(model.bundle.file(image.file))
        failures += _compare(model, golden, Role.IMAGE_ENCODER, image, image.file, got)
    for index, text in enumerate(golden.texts):
        encoding = model.tokenizer.encode([text.text])
        got = model.embed_ids(encoding.ids[0], encoding.mask[0])
        failures += _compare(model, golden, Role.TEXT_ENCODER, text, f"golden text {index}", got)
    return failures


def _compare(
    model: Model, golden: Golden, role: Role, entry: GoldenImage | GoldenText, what: str, got: np.ndarray
) -> list[str]:
    limit = golden.tolerance.get(model.variant, {}).get(role)
    expected = np.asarray(entry.embedding, np.float32)
    if limit is None:
        return [f"{model.variant}: {what}: the golden pack has no tolerance for the {role.value}"]
    if expected.shape != got.shape:
        return [f"{model.variant}: {what}: {len(got)} values, expected {len(expected)}"]
    cosine = float(got @ expected / max(float(np.linalg.norm(got) * np.linalg.norm(expected)), 1e-12))
    worst = float(np.abs(got - expected).max())
    if not cosine >= limit.cosine_min:
        return [f"{model.variant}: {what}: cosine {cosine:.5f}, at least {limit.cosine_min:.5f} expected"]
    if limit.max_abs is not None and not worst <= limit.max_abs:
        return [f"{model.variant}: {what}: off by {worst:.2e}, at most {limit.max_abs:.2e} expected"]
    return []
