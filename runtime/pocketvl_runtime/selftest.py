"""Does this machine give the answers that the bundle promises?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BackendError, BundleError, InputError, PocketVLError, quoted
from pocketvl_runtime.golden import (
    AnswerTolerance,
    Golden,
    GoldenAnswers,
    GoldenImage,
    GoldenText,
    Scores,
)
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.manifest import Manifest, Role
from pocketvl_runtime.model import Model, load
from pocketvl_runtime.tasks import Floats, label_texts, probabilities, similarities
from pocketvl_runtime.text import Tokenizer

Progress = Callable[[int, int, str], None]
_Doubles: TypeAlias = npt.NDArray[np.float64]

_NO_ANSWERS = (
    "the golden pack was made before answers stood in it, so logit_scale, labels and what follows from them "
    "were not checked; export the bundle again to add them"
)


@dataclass(frozen=True)
class SelftestReport:
    """What was checked, and one line for everything that did not hold.

    Attributes:
        files: of the bundle.
        images, texts: of the golden pack.
        answers: of the golden pack, one a picture and task; 0 where it was made before answers stood in it.
        variants: on which these were checked.
        failures: what did not hold.
        notes: what else there is to know.
    """

    files: int
    images: int
    texts: int
    answers: int
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
    """Checks every file's checksum, and the golden pack's pixels, ids, embeddings and answers.

    Args:
        bundle: opened.
        variants: whose embeddings and answers are checked.
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
    failures = [*_empty(golden), *_manifest(bundle.manifest, golden), *_preprocessing(bundle, golden)]
    notes = dict.fromkeys([_NO_ANSWERS] if golden.schema_version == 1 else [])
    for number, name in enumerate(variants, start=1):
        try:
            model = load(bundle, name, threads)
            notes.update(dict.fromkeys(model.notes))
            failures += _variant(model, golden)
        except (BackendError, BundleError) as error:
            failures.append(f"{name}: {error}")
        if progress is not None:
            progress(number, len(variants), name)
    answers = golden.answers.count if golden.answers is not None else 0
    return SelftestReport(
        files, len(golden.images), len(golden.texts), answers, tuple(variants), tuple(failures), tuple(notes)
    )


def _empty(golden: Golden) -> list[str]:
    kinds: dict[str, object] = {"picture": golden.images, "text": golden.texts}
    if golden.schema_version > 1:
        kinds["answer"] = golden.answers is not None
    return [f"the golden pack has no {kind} to check" for kind, held in kinds.items() if not held]


def _manifest(manifest: Manifest, golden: Golden) -> list[str]:
    """The manifest's fields that change answers and that nothing else holds against anything."""
    answers = golden.answers
    if answers is None:
        return []
    failures = [
        f"the manifest's {name} is {quoted(found)}, and the golden answers were made with {quoted(expected)}"
        for name, found, expected in (
            ("space", manifest.space, answers.space),
            ("logit_scale", manifest.logit_scale, answers.logit_scale),
            ("label_template", manifest.label_template, answers.label_template),
        )
        if found != expected
    ]
    if manifest.labels != answers.labels:
        failures.append("the manifest's labels, or their order, are not those of the golden answers")
    for name, limit in answers.tolerance.items():
        spec = manifest.variants.get(name)
        if spec is not None and spec.status is not limit.status:
            failures.append(
                f"{name}: its status is {spec.status.value}, and the gate gave {limit.status.value}"
            )
    return failures


def _preprocessing(bundle: Bundle, golden: Golden) -> list[str]:
    tokenizer = Tokenizer(bundle.read(bundle.manifest.tokenizer.file), bundle.manifest.tokenizer)
    failures = []
    for image in golden.images:
        try:
            expected = np.asarray(open_image(bundle.file(image.pixels)))
            got = preprocess(open_image(bundle.file(image.file)), bundle.manifest.preprocess)
        except PocketVLError as error:
            failures.append(f"{image.file}: {error}")
            continue
        if expected.shape != got.shape:
            failures.append(f"{image.file}: pixels {list(got.shape)}, expected {list(expected.shape)}")
        elif not np.array_equal(expected, got):
            worst = int(np.abs(expected.astype(int) - got).max())
            failures.append(f"{image.file}: the pixels differ by up to {worst} grey levels")
    for index, text in enumerate(golden.texts):
        try:
            ids = tuple(int(i) for i in tokenizer.encode([text.text]).ids[0])
        except PocketVLError as error:
            failures.append(f"golden text {index}: {error}")
            continue
        if ids != text.ids:
            failures.append(f"golden text {index}: the token ids differ")
    return failures


def _variant(model: Model, golden: Golden) -> list[str]:
    try:
        images = [model.embed_image(model.bundle.file(image.file)) for image in golden.images]
        texts = _embed(model, [text.text for text in golden.texts])
        failures = []
        for image, got in zip(golden.images, images, strict=True):
            failures += _compare(model, golden, Role.IMAGE_ENCODER, image, image.file, got)
        for index, (text, got) in enumerate(zip(golden.texts, texts, strict=True)):
            failures += _compare(model, golden, Role.TEXT_ENCODER, text, f"golden text {index}", got)
        if golden.answers is not None:
            failures += _answers(model, golden, golden.answers, images, texts)
    except InputError as error:  # of the golden pack's own inputs
        return [f"{model.variant}: {error}"]
    return failures


def _embed(model: Model, texts: Sequence[str]) -> list[Floats]:
    """Embeddings of texts, without a word about those that are cut."""
    encoding = model.tokenizer.encode(texts)
    return [model.embed_ids(ids, mask) for ids, mask in zip(encoding.ids, encoding.mask, strict=True)]


def _compare(
    model: Model, golden: Golden, role: Role, entry: GoldenImage | GoldenText, what: str, got: np.ndarray
) -> list[str]:
    limit = golden.tolerance.get(model.variant, {}).get(role)
    expected = np.asarray(entry.embedding)
    if limit is None:
        return [f"{model.variant}: {what}: the golden pack has no tolerance for the {role.value}"]
    if expected.shape != got.shape:
        return [f"{model.variant}: {what}: {len(got)} values, expected {len(expected)}"]
    with np.errstate(all="ignore"):  # a golden pack may hold any finite numbers
        cosine = float(got @ expected / max(float(np.linalg.norm(got) * np.linalg.norm(expected)), 1e-12))
    worst = float(np.abs(got - expected).max())
    if not cosine >= limit.cosine_min:
        return [f"{model.variant}: {what}: cosine {cosine:.5f}, at least {limit.cosine_min:.5f} expected"]
    if limit.max_abs is not None and not worst <= limit.max_abs:
        return [f"{model.variant}: {what}: off by {worst:.2e}, at most {limit.max_abs:.2e} expected"]
    return []


def _answers(
    model: Model, golden: Golden, answers: GoldenAnswers, images: Sequence[Floats], texts: Sequence[Floats]
) -> list[str]:
    limit = answers.tolerance.get(model.variant)
    if limit is None:
        return [f"{model.variant}: the golden pack has no tolerance for its answers"]
    tasks = [("match", texts, answers.match)]
    if answers.labels == model.manifest.labels:  # else it has been said
        labels = _embed(model, label_texts(model.manifest.label_template, answers.labels))
        tasks.append(("classify", labels, answers.classify))
    failures = []
    for task, asked, rows in tasks:
        for image, seen, expected in zip(golden.images, images, rows, strict=False):
            similarity = similarities(seen, np.stack(asked))
            probability = probabilities(similarity, model.manifest.logit_scale)
            wrong = _wrong_scores(similarity, probability, expected, limit)
            failures += [f"{model.variant}: {task} of {image.file}: {wrong}"] if wrong else []
    return failures


def _wrong_scores(
    similarity: _Doubles, probability: _Doubles, expected: Scores, limit: AnswerTolerance
) -> str | None:
    """What is wrong with an answer; what comes first counts where torch's lead is more than the tolerance."""
    promised = np.asarray(expected.probability)
    off = float(np.abs(similarity - expected.similarity).max())
    if not off <= limit.similarity:
        return f"a similarity is off by {off:.4f}, at most {limit.similarity:.4f} expected"
    off = float(np.abs(probability - promised).max())
    if not off <= limit.probability:
        return f"a probability is off by {off:.4f}, at most {limit.probability:.4f} expected"
    first, found = int(promised.argmax()), int(probability.argmax())
    if promised[first] - promised[found] > limit.probability:
        return f"number {found} comes first where {first} is right"
    return None
