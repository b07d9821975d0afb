"""`load` a bundle, and ask it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from pocketvl_runtime.backends import (
    Array,
    Backend,
    can_run,
    cannot_run,
    install_advice,
    is_stand_in,
    open_backend,
)
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.cpus import usable_processors
from pocketvl_runtime.errors import (
    BackendError,
    BackendWarning,
    BundleError,
    InputError,
    PocketVLError,
)
from pocketvl_runtime.image import ImageInput, open_image, preprocess
from pocketvl_runtime.manifest import (
    MAX_GRAPH_BYTES,
    Engine,
    ImageProcessor,
    Manifest,
    PortKind,
    Precision,
    Status,
    TextProcessor,
)
from pocketvl_runtime.manifest.tasks import LABEL_SLOT
from pocketvl_runtime.obstacles import refuse_task, runnable_tasks
from pocketvl_runtime.tasks import (
    ClassifyReport,
    Doubles,
    Floats,
    LabelScore,
    MatchReport,
    TextScore,
    TimingMs,
    label_texts,
    probabilities,
    similarities,
)
from pocketvl_runtime.text import Tokenizer, check_texts

if TYPE_CHECKING:
    from collections.abc import Iterator

_PREFERRED_PRECISIONS = (Precision.INT8, Precision.FP16, Precision.FP32)
_PREFERRED_ENGINES = (Engine.TFLITE, Engine.ONNX)
_MOST_DEFAULT_THREADS = 4
_NORM_TOLERANCE = 1e-2


def load(
    bundle: str | Path | Bundle,
    variant: str | None = None,
    threads: int | None = None,
    *,
    allow_non_finite: bool = False,
    max_graph_bytes: int = MAX_GRAPH_BYTES,
) -> Model:
    """Opens a bundle and loads one of its variants; warns (BackendWarning) of what its engine does at a cost.

    The model may be asked from several threads at once. ONNX Runtime computes their answers side by side,
    LiteRT one after the other: where several cores are to answer, load a model for each.

    Args:
        bundle: the folder, or an opened bundle.
        variant: which one; by default an accepted one whose engine is installed and new enough, int8 before
            fp16 before fp32 before others, and TFLite before ONNX. One that only a stand-in for its engine
            can run comes last.
        threads: for one inference, 1 to 256; by default as many as there are processors that this process may
            use, at most 4.
        allow_non_finite: give out embeddings that hold NaN or infinity, or are not L2-normalised, instead of
            raising BackendError; for measuring a broken variant, never for answering with it.
        max_graph_bytes: a larger graph file is refused before it is read.

    Raises:
        BundleError: the bundle is missing or damaged, has no such variant, or too large a graph.
        InputError: there are no such numbers of threads.
        BackendError: the engine is not installed, is too old for the variant, or refuses a graph.
    """
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    chosen = default_variant(opened) if variant is None else variant
    for graph in opened.graphs(chosen):
        if not can_run(graph):
            raise cannot_run(f"variant {chosen}", graph, runnable_variants(opened))
    Image.preinit()  # or the first picture would pay for the import of Pillow's decoders
    count = default_threads() if threads is None else threads
    model = Model(opened, chosen, count, allow_non_finite, max_graph_bytes)
    for note in model.notes:
        warnings.warn(note, BackendWarning, stacklevel=2)
    return model


def default_threads() -> int:
    """How many threads `load` takes when it is not told."""
    return min(_MOST_DEFAULT_THREADS, usable_processors())


def runs_here(bundle: Bundle, variant: str) -> bool:
    """Whether the engine of a variant is installed, and new enough for all of its graphs.

    Raises:
        BundleError: there is no such variant.
    """
    return all(can_run(graph) for graph in bundle.graphs(variant))


def runnable_variants(bundle: Bundle) -> list[str]:
    """The variants that can run here, in the manifest's order."""
    return [name for name in bundle.manifest.variants if runs_here(bundle, name)]


def default_variant(bundle: Bundle) -> str:
    """What `load` takes when it is not told.

    Raises:
        BundleError: the bundle has no variant at all.
        BackendError: no accepted variant can run here.
    """
    variants = bundle.manifest.variants
    accepted = [name for name in runnable_variants(bundle) if variants[name].status is Status.ACCEPTED]
    if not accepted:
        raise nothing_runs(bundle)
    return min(accepted, key=lambda name: _rank(bundle, name))


def nothing_runs(bundle: Bundle) -> PocketVLError:
    """The error for a bundle of which nothing can be taken without being named, and what to do about it."""
    variants = bundle.manifest.variants
    if not variants:
        return BundleError(f"{bundle.root} holds no variant; export the bundle again")
    accepted = [name for name, spec in variants.items() if spec.status is Status.ACCEPTED]
    graphs = [graph for name in accepted or variants for graph in bundle.graphs(name)]
    missing = dict.fromkeys(install_advice(graph) for graph in graphs if not can_run(graph))
    advice = [f"pip install {' or '.join(missing)}"] if missing else []
    experimental = [
        name for name in runnable_variants(bundle) if variants[name].status is Status.EXPERIMENTAL
    ]
    if experimental:
        advice.append(f"name one of {', '.join(experimental)}, which failed the gate")
    return BackendError(f"no accepted variant of {bundle.root} can run here: {', or '.join(advice)}")


def _rank(bundle: Bundle, name: str) -> tuple[bool, int, int]:
    spec = bundle.manifest.variants[name]
    precision = (*_PREFERRED_PRECISIONS, spec.precision).index(spec.precision)
    stand_in = any(is_stand_in(graph) for graph in bundle.graphs(name))
    return stand_in, precision, _PREFERRED_ENGINES.index(spec.engine)


_Kind = TypeVar("_Kind", ImageProcessor, TextProcessor)


@dataclass(frozen=True)
class _Encoder(Generic[_Kind]):
    """A side of a contrastive task.

    Attributes:
        port: the embedding, "component.output".
        component, output: the same in two.
        source: the processor that makes its inputs.
        processor: that, as the manifest has it.
        dim: length of an embedding.
    """

    port: str
    component: str
    output: str
    source: str
    processor: _Kind
    dim: int


def _encoder(manifest: Manifest, ports: Sequence[str], kind: type[_Kind]) -> _Encoder[_Kind]:
    """The side of a task that a processor of a kind leads to; `task_obstacle` made sure that there is one."""
    for port in ports:
        component, _, output = port.partition(".")
        for source in filter(None, {each.source for each in manifest.graphs[component].inputs}):
            processor, dim = manifest.processors[source], manifest.output(port).shape[-1]
            if isinstance(processor, kind) and isinstance(dim, int):
                return _Encoder(port, component, output, source, processor, dim)
    raise BundleError(f"{' and '.join(ports)} have no {kind.__name__}; export the bundle again")


class Model:
    """One variant of a bundle, loaded; made by `load`. May be asked from several threads at once.

    It holds the components of the contrastive tasks: those are what this runtime can run.
    """

    def __init__(
        self,
        bundle: Bundle,
        variant: str,
        threads: int,
        allow_non_finite: bool = False,
        max_graph_bytes: int = MAX_GRAPH_BYTES,
    ) -> None:
        self.bundle = bundle
        self.variant = variant
        self.threads = threads
        self._allow_non_finite = allow_non_finite
        self._sides = self._find_sides()
        self._image, self._text = self._sides.get("match") or next(iter(self._sides.values()))
        self._tokenizers = {
            text.source: self._open_tokenizer(text.processor)
            for text in (text for _, text in self._sides.values())
        }
        encoders = dict.fromkeys(side.component for sides in self._sides.values() for side in sides)
        files = bundle.variant(variant).files
        self._backends = {name: self._open(name, max_graph_bytes) for name in encoders if name in files}

    def _find_sides(self) -> dict[str, tuple[_Encoder[ImageProcessor], _Encoder[TextProcessor]]]:
        """The image's and the text's encoder of each task that can be run.

        Raises:
            BundleError: there is none.
        """
        tasks = runnable_tasks(self.manifest)
        if not tasks:
            for name in self.manifest.tasks:
                refuse_task(self.manifest, name)
            raise BundleError(f"{self.bundle.root} has no task; export the bundle again")
        sides = {}
        for name, task in tasks.items():
            ports = (task.first, task.second)
            sides[name] = (
                _encoder(self.manifest, ports, ImageProcessor),
                _encoder(self.manifest, ports, TextProcessor),
            )
        return sides

    def _open_tokenizer(self, processor: TextProcessor) -> Tokenizer:
        return Tokenizer(self.bundle.read(processor.file), processor)

    def _open(self, component: str, max_graph_bytes: int) -> Backend:
        graph = self.manifest.graph(self.variant, component)
        size = self.manifest.files[graph.file].bytes  # `read` refuses a file of another size
        if size > max_graph_bytes:
            raise BundleError(
                f"{self.bundle.root / graph.file} has {size} bytes, and at most {max_graph_bytes} are read; "
                "use a smaller variant"
            )
        return open_backend(graph, self.bundle.read(graph.file), self.threads)

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    @property
    def notes(self) -> tuple[str, ...]:
        """What the backends did on their own account, each said once."""
        return tuple(dict.fromkeys(note for backend in self._backends.values() for note in backend.notes))

    @property
    def engine(self) -> str:
        """The engine in use and its version."""
        return ", ".join(dict.fromkeys(backend.name for backend in self._backends.values()))

    @property
    def components(self) -> frozenset[str]:
        """The components that are loaded."""
        return frozenset(self._backends)

    @property
    def tokenizer(self) -> Tokenizer:
        """The bundle's tokenizer."""
        return self._tokenizers[self._text.source]

    @property
    def image_processor(self) -> ImageProcessor:
        """How pictures become pixels."""
        return self._image.processor

    @property
    def space(self) -> str | None:
        """The space that embeddings lie in."""
        return self.manifest.output(self._image.port).space

    # --- embeddings ----------------------------------------------------------------------------------

    def embed_image(self, image: ImageInput) -> Floats:
        """Embeds a picture (see `ImageInput` and `open_image`): float32 [D], L2-normalised.

        Raises:
            InputError: the picture cannot be used.
            BackendError: the engine failed.
        """
        return self.embed_pixels(preprocess(open_image(image), self.image_processor))

    def embed_text(self, texts: Sequence[str]) -> Floats:
        """Embeds texts: float32 [N, D], L2-normalised. Warns (TruncatedTextWarning) of texts that were cut.

        Raises:
            InputError: a text is empty or not valid Unicode.
            BackendError: the engine failed.
        """
        return self._embed_texts(self._text, texts)

    def embed_pixels(self, pixels: npt.NDArray[np.uint8]) -> Floats:
        """Embeds what `preprocess` made, uint8 [H, W, 3]: float32 [D]."""
        return self._embed_pixels(self._image, pixels)

    def embed_ids(self, ids: npt.NDArray[np.int32], mask: npt.NDArray[np.int32] | None = None) -> Floats:
        """Embeds what the tokenizer made, int32 [T] (and its mask, where a graph takes it): float32 [D]."""
        return self._embed_ids(self._text, ids, mask)

    def _embed_pixels(self, encoder: _Encoder[ImageProcessor], pixels: npt.NDArray[np.uint8]) -> Floats:
        return self._embed(encoder, {PortKind.PIXELS: pixels[None]})

    def _embed_texts(self, encoder: _Encoder[TextProcessor], texts: Sequence[str]) -> Floats:
        encoding = self._tokenizers[encoder.source].encode(texts)
        encoding.warn_if_truncated()
        pairs = zip(encoding.ids, encoding.mask, strict=True)
        rows = [self._embed_ids(encoder, ids, mask) for ids, mask in pairs]
        return np.stack(rows) if rows else np.zeros((0, encoder.dim), np.float32)

    def _embed_ids(
        self,
        encoder: _Encoder[TextProcessor],
        ids: npt.NDArray[np.int32],
        mask: npt.NDArray[np.int32] | None,
    ) -> Floats:
        made = {PortKind.TOKEN_IDS: ids[None]}
        if mask is not None:
            made[PortKind.ATTENTION_MASK] = mask[None]
        return self._embed(encoder, made)

    def _embed(self, encoder: _Encoder[Any], made: Mapping[PortKind, Array]) -> Floats:
        rows = self.run(encoder.component, {encoder.source: made})[encoder.output]
        return np.asarray(rows[0], dtype=np.float32)

    def run(self, component: str, made: Mapping[str, Mapping[PortKind, Array]]) -> dict[str, Array]:
        """What a component gives, by output.

        Args:
            component: which.
            made: what the processors made, by processor and kind.

        Raises:
            BundleError: the variant has no such component.
            InputError: something that it takes was not made.
            BackendError: the engine failed, or gave an embedding that cannot be right.
        """
        if component not in self._backends:
            raise BundleError(f"variant {self.variant} has no {component}")
        feed = {}
        for given in self.manifest.graphs[component].inputs:
            value = made.get(given.source or "", {}).get(given.kind)
            if value is None:
                raise InputError(f"{component} needs {given.kind.value} of {given.source} as {given.name!r}")
            feed[given.name] = value
        outputs = self._backends[component].run(feed)
        if not self._allow_non_finite:
            for port in self.manifest.graphs[component].outputs:
                if port.kind is PortKind.EMBEDDING:
                    self._check(outputs[port.name], component)
        return outputs

    def _check(self, embedding: Array, component: str) -> None:
        """An answer that cannot be right must not pass as one."""
        if not np.isfinite(embedding).all():
            raise BackendError(f"{self.variant}: {component} gave NaN or infinity; use another variant")
        norm = float(np.linalg.norm(embedding.astype(np.float32)))
        if not abs(norm - 1) <= _NORM_TOLERANCE:
            raise BackendError(
                f"{self.variant}: {component} gave a vector of length {norm:.3g} where 1 is right; "
                "use another variant"
            )

    # --- tasks ---------------------------------------------------------------------------------------

    def match(self, image: ImageInput, texts: Sequence[str]) -> MatchReport:
        """How well each text fits the picture.

        Raises:
            InputError: the picture or a text cannot be used, or there is no text.
            BundleError: the bundle has no such task, or one that this runtime cannot run.
            BackendError: the engine failed.
        """
        refuse_task(self.manifest, "match")
        similarity, timing = self._score("match", image, texts)
        shares = self.probabilities("match", similarity)
        results = tuple(
            TextScore(text, float(s), float(p)) for text, s, p in zip(texts, similarity, shares, strict=True)
        )
        return MatchReport(self.variant, results, timing)

    def classify(self, image: ImageInput, labels: Sequence[str] | None = None) -> ClassifyReport:
        """How well each label fits the picture; by default the bundle's own labels.

        Raises:
            InputError: the picture or a label cannot be used, or there are no labels.
            BundleError: the bundle has no such task, or one that this runtime cannot run.
            BackendError: the engine failed.
        """
        refuse_task(self.manifest, "classify")
        task = runnable_tasks(self.manifest)["classify"]
        chosen = task.labels if labels is None else labels
        if not chosen:
            raise InputError("this bundle has no labels of its own: give some")
        check_texts(chosen, "label")
        texts = label_texts(task.template or LABEL_SLOT, chosen)
        similarity, timing = self._score("classify", image, texts)
        shares = self.probabilities("classify", similarity)
        results = tuple(
            LabelScore(label, float(s), float(p))
            for label, s, p in zip(chosen, similarity, shares, strict=True)
        )
        return ClassifyReport(self.variant, results, timing)

    def probabilities(self, task: str, similarity: Doubles) -> Doubles:
        """What a contrastive task makes of one picture's cosines [N] with texts: float64 [N]."""
        head = runnable_tasks(self.manifest)[task]
        scale = head.scale.first if head.first == self._sides[task][0].port else head.scale.second
        return probabilities(similarity, scale, head.bias, head.activation)

    def _score(self, task: str, image: ImageInput, texts: Sequence[str]) -> tuple[Doubles, TimingMs]:
        check_texts(texts)
        if not texts:
            raise InputError("at least one text is needed")
        seen_by, read_by = self._sides[task]
        spent: dict[str, float] = {}
        start = time.perf_counter()
        with _clock(spent, "decode"):
            picture = open_image(image)
        with _clock(spent, "preprocess"):
            pixels = preprocess(picture, seen_by.processor)
        del picture  # up to 0.4 GB that the engine may need
        with _clock(spent, "image"):
            seen = self._embed_pixels(seen_by, pixels)
        with _clock(spent, "text"):
            read = self._embed_texts(read_by, texts)
        similarity = similarities(seen, read)
        return similarity, TimingMs(**spent, total=1000 * (time.perf_counter() - start))


@contextmanager
def _clock(spent: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    spent[stage] = 1000 * (time.perf_counter() - start)
