"""Does this machine give the answers that the bundle promises?"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from pocketvl_runtime.audio import AudioWarning, load_features
from pocketvl_runtime.backends import Array
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BackendError, BundleError, InputError, PocketVLError
from pocketvl_runtime.golden import (
    AnswerTolerance,
    Golden,
    GoldenArray,
    GoldenAudio,
    GoldenImage,
    GoldenText,
    Scores,
    Tolerance,
    VariantTolerance,
)
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.manifest import (
    AudioProcessor,
    ContrastiveTask,
    EmbedTask,
    ImageProcessor,
    LabelsTask,
    Manifest,
    MatchTask,
    PortKind,
    Processor,
    TextProcessor,
    component_of,
)
from pocketvl_runtime.model import Model, load
from pocketvl_runtime.obstacles import (
    processor_obstacle,
    processors_before,
    runnable_components,
    runnable_tasks,
    task_obstacle,
)
from pocketvl_runtime.progress import Progress
from pocketvl_runtime.tasks import (
    Doubles,
    activated,
    fit_probabilities,
    label_texts,
    probabilities,
    similarities,
)
from pocketvl_runtime.text import Encoding, Tokenizer

FEATURES_TOLERANCE_DB = 1e-3
"""How far features may be from the golden ones: other processors and FFTs round otherwise."""

_NO_ANSWERS = (
    "the golden pack was made before answers stood in it, so the scale, labels and what follows from them "
    "were not checked; export the bundle again to add them"
)


@dataclass(frozen=True)
class SelftestReport:
    """What was checked, and one line for everything that did not hold.

    Attributes:
        files: of the bundle.
        images, sounds, texts: of the golden pack.
        answers: of the golden pack, one a picture or sound and task; 0 where it was made before answers
            stood in it.
        variants: on which these were checked.
        failures: what did not hold.
        notes: what else there is to know.
    """

    files: int
    images: int
    sounds: int
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
    """Checks every file's checksum, and the golden pack's pixels, features, ids, embeddings and answers.

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
    made, wrong = _processors(bundle, golden)
    failures = [*_empty(bundle.manifest, golden), *wrong]
    notes = dict.fromkeys(_skipped(bundle.manifest, golden))
    for number, name in enumerate(variants, start=1):
        try:
            model = load(bundle, name, threads)
            notes.update(dict.fromkeys(model.notes))
            failures += _failures(_Variant(model, golden, made))
        except (BackendError, BundleError) as error:
            failures.append(f"{name}: {error}")
        if progress is not None:
            progress(number, len(variants), name)
    answers = sum(map(len, (golden.answers or {}).values()))
    return SelftestReport(
        files,
        len(golden.images),
        len(golden.sounds),
        len(golden.texts),
        answers,
        tuple(variants),
        tuple(failures),
        tuple(notes),
    )


def _empty(manifest: Manifest, golden: Golden) -> list[str]:
    """What stands in the manifest and has nothing in the golden pack that would prove it."""
    failures = [
        f"the golden pack has no input of processor {name!r}"
        for name in manifest.processors
        if not golden.inputs.get(name)
    ]
    if failures or golden.answers is None:
        return failures
    return [
        f"the golden pack has no answer of task {name!r}"
        for name, task in runnable_tasks(manifest).items()
        if not isinstance(task, EmbedTask)  # its answers are the outputs
        and not golden.answers.get(name)
        and getattr(task, "labels", None) != ()
    ]


def _skipped(manifest: Manifest, golden: Golden) -> list[str]:
    """What is not checked, and why."""
    notes = [_NO_ANSWERS] if golden.answers is None else []
    for name in manifest.tasks:
        obstacle = task_obstacle(manifest, name)
        if obstacle is not None:
            notes.append(f"task {name!r} is not checked: this runtime cannot run {obstacle}")
    return notes


_Answering: TypeAlias = ContrastiveTask | LabelsTask | MatchTask
"""Tasks whose answers stand in a golden pack."""
_Made = Mapping[str, Sequence[Mapping[PortKind, Array] | None]]
"""By processor, what it made of each golden input; None where it could not."""


def _processors(bundle: Bundle, golden: Golden) -> tuple[_Made, list[str]]:
    """What the processors make of the golden inputs, and what is wrong with it."""
    made: dict[str, list[Mapping[PortKind, Array] | None]] = {}
    failures: list[str] = []
    for name, inputs in golden.inputs.items():
        processor = bundle.manifest.processors.get(name)
        if processor is None:
            failures.append(f"the golden pack has inputs of processor {name!r}, and the manifest has none")
        made[name] = []
        tokenizer = _tokenizer(bundle, processor)
        for number, given in enumerate(inputs):
            features = None
            try:
                if isinstance(given, GoldenImage) and isinstance(processor, ImageProcessor):
                    features, wrong = _pixels(bundle, processor, given)
                    failures += [f"{given.file}: {wrong}"] if wrong else []
                elif isinstance(given, GoldenAudio) and isinstance(processor, AudioProcessor):
                    features, wrong = _features(bundle, processor, given)
                    failures += [f"{given.file}: {wrong}"] if wrong else []
                elif isinstance(given, GoldenText) and tokenizer is not None:
                    encoding = tokenizer.encode([given.text])
                    features = _ids_and_mask(encoding, 0)
                    if tuple(encoding.ids[0].tolist()) != given.ids:
                        failures.append(f"golden text {number}: the token ids differ")
            except PocketVLError as error:
                what = f"golden text {number}" if isinstance(given, GoldenText) else given.file
                failures.append(f"{what}: {error}")
            made[name].append(features)
    return made, failures


def _tokenizer(bundle: Bundle, processor: Processor | None) -> Tokenizer | None:
    if not isinstance(processor, TextProcessor) or processor_obstacle(processor) is not None:
        return None
    return Tokenizer(bundle.read(processor.file), processor)


def _pixels(
    bundle: Bundle, processor: ImageProcessor, image: GoldenImage
) -> tuple[Mapping[PortKind, Array] | None, str | None]:
    if processor_obstacle(processor) is not None:
        return None, None
    expected = np.asarray(open_image(bundle.file(image.pixels)))
    got = preprocess(open_image(bundle.file(image.file)), processor)
    wrong = None
    if expected.shape != got.shape:
        wrong = f"pixels {list(got.shape)}, expected {list(expected.shape)}"
    elif not np.array_equal(expected, got):
        wrong = f"the pixels differ by up to {int(np.abs(expected.astype(int) - got).max())} grey levels"
    return {PortKind.PIXELS: got[None]}, wrong


def _features(
    bundle: Bundle, processor: AudioProcessor, sound: GoldenAudio
) -> tuple[Mapping[PortKind, Array] | None, str | None]:
    if processor_obstacle(processor) is not None:
        return None, None
    expected = np.frombuffer(bundle.read(sound.features), "<f4")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)  # the golden pack has a long one on purpose
        got = load_features(bundle.file(sound.file), processor)
    wrong = None
    if expected.size != got.size:
        wrong = f"{got.size} features, expected {expected.size}"
    else:
        worst = float(np.abs(got.ravel() - expected).max())
        if not worst <= FEATURES_TOLERANCE_DB:
            wrong = f"features are off by up to {worst:.2e} dB, at most {FEATURES_TOLERANCE_DB:g} expected"
    return {PortKind.AUDIO_FEATURES: got}, wrong


def _failures(variant: _Variant) -> list[str]:
    """What does not hold, inputs that cannot be used included: they are the bundle's own."""
    try:
        return variant.failures()
    except InputError as error:
        return [f"{variant.name}: {error}"]


class _Variant:
    """One variant, whose outputs for golden inputs are computed once."""

    def __init__(self, model: Model, golden: Golden, made: _Made) -> None:
        self.name = model.variant
        self._model, self._golden, self._made = model, golden, made
        self._limits = golden.tolerance.get(model.variant, VariantTolerance({}, {}))
        self._outputs: dict[tuple[str, tuple[tuple[str, int], ...]], Array] = {}

    def failures(self) -> list[str]:
        """What does not hold."""
        failures: list[str | None] = [
            self._compare(port, array)
            for port, arrays in self._golden.outputs.items()
            for array in arrays
            if self._is_made(array)
        ]
        tasks = runnable_tasks(self._model.manifest)
        for name, rows in (self._golden.answers or {}).items():
            task = tasks.get(name)
            if task is not None and not isinstance(task, EmbedTask):
                failures += self._answers(name, task, [row for row in rows if self._is_made(row)])
        return [f"{self._model.variant}: {failure}" for failure in failures if failure]

    def _is_made(self, row: GoldenArray | Scores) -> bool:
        """Whether the processors made the inputs; why they did not has been said."""
        return all(self._made[name][number] is not None for name, number in row.inputs.items())

    def _shown(self, inputs: Mapping[str, int]) -> str:
        """Inputs as a failure calls them."""
        names = []
        for processor, number in inputs.items():
            given = self._golden.inputs[processor][number]
            names.append(f"golden text {number}" if isinstance(given, GoldenText) else given.file)
        return " and ".join(names)

    def _output(self, port: str, inputs: Mapping[str, int]) -> Array:
        key = (port, tuple(sorted(inputs.items())))
        if key not in self._outputs:
            self._outputs[key] = self._run(
                port, {name: self._made[name][number] or {} for name, number in inputs.items()}
            )
        return self._outputs[key]

    def _run(self, port: str, made: Mapping[str, Mapping[PortKind, Array]]) -> Array:
        component, _, output = port.partition(".")
        return self._model.run(component, made)[output]

    def _compare(self, port: str, expected: GoldenArray) -> str | None:
        component, manifest = component_of(port), self._model.manifest
        if component in manifest.graphs and component not in runnable_components(manifest):
            return None  # its task cannot be run, as a note says
        what = self._shown(expected.inputs)
        limit = self._limits.ports.get(port)
        if limit is None:
            return f"{what}: the golden pack has no tolerance for {port}"
        got = self._output(port, expected.inputs)
        if got.shape != expected.shape:
            return f"{what}: {port} is {list(got.shape)}, expected {list(expected.shape)}"
        wrong = wrong_array(got.astype(np.float64).ravel(), np.asarray(expected.values), limit)
        return f"{what}: {port}: {wrong}" if wrong else None

    def _answers(self, name: str, task: _Answering, rows: Sequence[Scores]) -> list[str]:
        limit = self._limits.answers.get(name)
        if limit is None:
            return [f"the golden pack has no tolerance for answers of {name}"]
        wrong = ((row, self._wrong_answer(task, row, limit)) for row in rows)
        return [f"{name} of {self._shown(row.inputs)}: {what}" for row, what in wrong if what]

    def _wrong_answer(self, task: _Answering, row: Scores, limit: AnswerTolerance) -> str | None:
        if isinstance(task, LabelsTask | MatchTask):
            if self._sources(task.logits) != set(row.inputs):
                return "the task does not take that"
            logits = self._output(task.logits, row.inputs)
            if isinstance(task, MatchTask):
                return _wrong_scores(None, fit_probabilities(logits, task), row, limit)
            probability = activated(logits[0], task.activation)
            return _wrong_scores(None, probability, row, limit) or _wrong_label(task.labels, row)
        asked_about = self._port_of(task, row.inputs)
        if asked_about is None:
            return "neither side of the task takes that"
        other = task.second if asked_about == task.first else task.first
        scale = task.scale.first if asked_about == task.first else task.scale.second
        asked = self._asked(task, other)
        if not asked:
            return "no input of the other side could be used"
        similarity = similarities(self._output(asked_about, row.inputs)[0], np.stack(asked))
        probability = probabilities(similarity, scale, task.bias, task.activation)
        return _wrong_scores(similarity, probability, row, limit)

    def _sources(self, port: str) -> frozenset[str]:
        """The processors that an output is made from."""
        return processors_before(self._model.manifest, component_of(port))

    def _port_of(self, task: ContrastiveTask, inputs: Mapping[str, int]) -> str | None:
        """The side of a task that takes such inputs."""
        sides = (task.first, task.second)
        return next((port for port in sides if self._sources(port) == set(inputs)), None)

    def _asked(self, task: ContrastiveTask, port: str) -> list[Array]:
        """The embeddings [D] of the labels in their template, or of all golden inputs of a side."""
        (source,) = self._sources(port)
        if task.labels is None or task.template is None:
            made = self._made.get(source, [])
            return [self._output(port, {source: n})[0] for n, each in enumerate(made) if each is not None]
        encoding = self._model.tokenizer.encode(label_texts(task.template, task.labels))
        return [self._run(port, {source: _ids_and_mask(encoding, n)})[0] for n in range(len(encoding.ids))]


def _ids_and_mask(encoding: Encoding, number: int) -> dict[PortKind, Array]:
    rows = slice(number, number + 1)
    return {PortKind.TOKEN_IDS: encoding.ids[rows], PortKind.ATTENTION_MASK: encoding.mask[rows]}


def wrong_array(got: Doubles, expected: Doubles, limit: Tolerance) -> str | None:
    with np.errstate(all="ignore"):  # a golden pack may hold any finite numbers
        cosine = float(got @ expected / max(float(np.linalg.norm(got) * np.linalg.norm(expected)), 1e-12))
    worst = float(np.abs(got - expected).max())
    if not cosine >= limit.cosine_min:
        return f"cosine {cosine:.5f}, at least {limit.cosine_min:.5f} expected"
    if limit.max_abs is not None and not worst <= limit.max_abs:
        return f"off by {worst:.2e}, at most {limit.max_abs:.2e} expected"
    return None


def _wrong_scores(
    similarity: Doubles | None, probability: Doubles, expected: Scores, limit: AnswerTolerance
) -> str | None:
    """What is wrong with an answer; what comes first counts where torch's lead is more than the tolerance."""
    promised = np.asarray(expected.probability)
    if len(promised) != len(probability):
        return f"{len(probability)} scores, expected {len(promised)}"
    if similarity is not None:
        off = float(np.abs(similarity - (expected.similarity or np.nan)).max())
        if not off <= limit.similarity:
            return f"a similarity is off by {off:.4f}, at most {limit.similarity:.4f} expected"
    off = float(np.abs(probability - promised).max())
    if not off <= limit.probability:
        return f"a probability is off by {off:.4f}, at most {limit.probability:.4f} expected"
    first, found = int(promised.argmax()), int(probability.argmax())
    if promised[first] - promised[found] > limit.probability:
        return f"number {found} comes first where {first} is right"
    return None


def _wrong_label(labels: Sequence[str], expected: Scores) -> str | None:
    """Whether the manifest's labels are in another order than those of the golden pack."""
    label = labels[int(np.argmax(expected.probability))]
    return None if label == expected.answer else f"{label!r} is answered, {expected.answer!r} expected"
