"""`load` a bundle, and ask it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from pocketvl_runtime.audio import AudioInput, Sound, log_mel, open_sound
from pocketvl_runtime.backends import Array, can_run, cannot_run
from pocketvl_runtime.backends.recorder import Recorder
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BackendWarning, BundleError, InputError
from pocketvl_runtime.image import ImageInput, open_image, preprocess
from pocketvl_runtime.loaded_graphs import LoadedGraphs, Made
from pocketvl_runtime.manifest import (
    AudioProcessor,
    ContrastiveTask,
    ImageProcessor,
    LabelsTask,
    Manifest,
    MatchTask,
    PortKind,
    TextProcessor,
)
from pocketvl_runtime.manifest.tasks import LABEL_SLOT
from pocketvl_runtime.obstacles import task_named
from pocketvl_runtime.prompts import check_templates, ensembled
from pocketvl_runtime.task_inputs import Input, Sensing, inputs_by_task, inputs_to_embed, wanted
from pocketvl_runtime.tasks import (
    AskReport,
    AskTimingMs,
    AudioTimingMs,
    ClassifyReport,
    Doubles,
    FittingText,
    Floats,
    LabelScore,
    MatchReport,
    QuestionAnswers,
    RerankReport,
    RerankTimingMs,
    TextScore,
    TimingMs,
    activated,
    fit_probabilities,
    label_texts,
    probabilities,
    ranked_answers,
    similarities,
)
from pocketvl_runtime.text import Tokenizer, check_texts
from pocketvl_runtime.variant_choice import default_threads, default_variant, runnable_variants

if TYPE_CHECKING:
    from collections.abc import Iterator


def load(
    bundle: str | Path | Bundle,
    variant: str | None = None,
    threads: int | None = None,
    *,
    allow_non_finite: bool = False,
    max_graph_bytes: int | None = None,
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
        max_graph_bytes: a larger graph is refused before it is read; default: `MAX_GRAPH_BYTES`, and where a
            graph keeps weights in a file beside it, `MAX_WEIGHTS_BYTES` for both.

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


MediaInput: TypeAlias = ImageInput | AudioInput
"""A picture, or a sound where a model listens."""


class Model:
    """One variant of a bundle, loaded; made by `load`. May be asked from several threads at once.

    It holds the components of the tasks that this runtime can run.
    """

    def __init__(
        self,
        bundle: Bundle,
        variant: str,
        threads: int,
        allow_non_finite: bool = False,
        max_graph_bytes: int | None = None,
    ) -> None:
        self.bundle = bundle
        self.variant = variant
        self.threads = threads
        self._allow_non_finite = allow_non_finite
        self._inputs = inputs_by_task(bundle)
        self._media, self._texts = inputs_to_embed(bundle.manifest, self._inputs)
        readers = {text.source: text.processor for _, text in self._inputs.values()}
        readers |= {} if self._texts is None else {self._texts.source: self._texts.processor}
        self._tokenizers = {source: self._open_tokenizer(each) for source, each in readers.items()}
        self._graphs = LoadedGraphs(bundle, variant, threads, max_graph_bytes)

    def _open_tokenizer(self, processor: TextProcessor) -> Tokenizer:
        return Tokenizer(self.bundle.read(processor.file), processor)

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    @property
    def notes(self) -> tuple[str, ...]:
        """What the backends did on their own account, each said once."""
        return self._graphs.notes

    @property
    def engine(self) -> str:
        """The engine in use and its version."""
        return self._graphs.engine

    @property
    def components(self) -> frozenset[str]:
        """The components that are loaded."""
        return self._graphs.components

    def recorded(self) -> AbstractContextManager[dict[str, Recorder]]:
        """Within it, the inputs that every component's graph was last given are kept."""
        return self._graphs.recorded()

    @property
    def tokenizer(self) -> Tokenizer:
        """The bundle's tokenizer.

        Raises:
            BundleError: the model reads no texts.
        """
        return self._tokenizers[wanted(self._texts, self.manifest, "reads no texts").source]

    @property
    def image_processor(self) -> ImageProcessor:
        """How pictures become pixels.

        Raises:
            BundleError: the model takes none.
        """
        return self._image_processor(wanted(self._media, self.manifest, "sees no pictures"))

    @property
    def audio_processor(self) -> AudioProcessor:
        """How sounds become spectrograms.

        Raises:
            BundleError: the model takes none.
        """
        return self._audio_processor(wanted(self._media, self.manifest, "hears no sounds"))

    def _image_processor(self, seen_by: Input[Sensing]) -> ImageProcessor:
        if not isinstance(seen_by.processor, ImageProcessor):
            raise BundleError(f"{self.manifest.model.name} takes sounds, not pictures")
        return seen_by.processor

    def _audio_processor(self, heard_by: Input[Sensing]) -> AudioProcessor:
        if not isinstance(heard_by.processor, AudioProcessor):
            raise BundleError(f"{self.manifest.model.name} takes pictures, not sounds")
        return heard_by.processor

    @property
    def space(self) -> str | None:
        """The space that embeddings lie in; None: the model gives none."""
        given = self._media or self._texts
        return None if given is None else self.manifest.output(given.port).space

    @property
    def _media_encoder(self) -> Input[Sensing]:
        """What becomes of pictures or sounds that are embedded.

        Raises:
            BundleError: the model embeds none.
        """
        self._check_embeds()
        return wanted(self._media, self.manifest, "embeds texts, and no pictures")

    @property
    def _text_encoder(self) -> Input[TextProcessor]:
        """Likewise of texts."""
        self._check_embeds()
        return wanted(self._texts, self.manifest, "embeds pictures, and no texts")

    def _check_embeds(self) -> None:
        if self.space is None:
            raise BundleError(
                f"{self.manifest.model.name} gives no embeddings; it can {', '.join(self._inputs)}"
            )

    # --- embeddings ----------------------------------------------------------------------------------

    def embed_image(self, image: ImageInput) -> Floats:
        """Embeds a picture (see `ImageInput` and `open_image`): float32 [D], L2-normalised.

        Raises:
            InputError: the picture cannot be used.
            BundleError: the model gives no embeddings of pictures.
            BackendError: the engine failed.
        """
        processor = self._image_processor(self._media_encoder)
        return self.embed_pixels(preprocess(open_image(image), processor))

    def embed_audio(self, audio: AudioInput) -> Floats:
        """Embeds a sound (see `AudioInput` and `open_sound`): float32 [D], L2-normalised.

        Warns (AudioWarning) of a sound that is longer than the model listens.

        Raises:
            InputError: the sound cannot be used.
            BundleError: the model gives no embeddings of sounds.
            BackendError: the engine failed.
        """
        processor = self._audio_processor(self._media_encoder)
        return self.embed_features(log_mel(open_sound(audio, processor), processor))

    def embed_text(self, texts: Sequence[str]) -> Floats:
        """Embeds texts: float32 [N, D], L2-normalised. Warns (TruncatedTextWarning) of texts that were cut.

        Raises:
            InputError: a text is empty or not valid Unicode.
            BundleError: the model gives no embeddings of texts.
            BackendError: the engine failed.
        """
        encoder = self._text_encoder
        return self._embed_each(encoder, self._encoded(encoder, texts))

    def embed_pixels(self, pixels: npt.NDArray[np.uint8]) -> Floats:
        """Embeds what `preprocess` made, uint8 [H, W, 3]: float32 [D]."""
        return self._embed(self._media_encoder, {PortKind.PIXELS: pixels[None]})

    def embed_features(self, features: Floats) -> Floats:
        """Embeds what `log_mel` made, of the shape that the graph takes: float32 [D]."""
        return self._embed(self._media_encoder, {PortKind.AUDIO_FEATURES: features})

    def embed_ids(self, ids: npt.NDArray[np.int32], mask: npt.NDArray[np.int32] | None = None) -> Floats:
        """Embeds what the tokenizer made, int32 [T] (and its mask, where a graph takes it): float32 [D]."""
        made = {PortKind.TOKEN_IDS: ids[None]}
        if mask is not None:
            made[PortKind.ATTENTION_MASK] = mask[None]
        return self._embed(self._text_encoder, made)

    def embedding_timing_ms(self, media: MediaInput | None, text: str | None) -> dict[str, float]:
        """Milliseconds by stage of embedding a picture or sound, a text, or both in turn; `total` among them.

        Raises:
            InputError: the picture or the text cannot be used.
            BundleError: the model gives no such embeddings.
            BackendError: the engine failed.
        """
        spent: dict[str, float] = {}
        start = time.perf_counter()
        if media is not None:
            encoder = self._media_encoder
            made = self._preprocessed(media, encoder, spent)
            with _clock(spent, "audio" if isinstance(encoder.processor, AudioProcessor) else "image"):
                self._embed(encoder, made)
        if text is not None:
            with _clock(spent, "tokens"):
                encoded = self._encoded(self._text_encoder, [text])
            with _clock(spent, "text"):
                self._embed_each(self._text_encoder, encoded)
        return {**spent, "total": 1000 * (time.perf_counter() - start)}

    def _embed_each(self, encoder: Input[TextProcessor], encoded: Sequence[Made]) -> Floats:
        rows = [self._embed(encoder, made) for made in encoded]
        if rows:
            return np.stack(rows) if len(rows) > 1 else rows[0][None]
        dim = self.manifest.output(encoder.port).shape[-1]
        return np.zeros((0, dim if isinstance(dim, int) else 0), np.float32)

    def _encoded(self, text: Input[TextProcessor], texts: Sequence[str]) -> list[Made]:
        """What the tokenizer makes of each text; warns of those that it cut."""
        encoding = self._tokenizers[text.source].encode(texts)
        encoding.warn_if_truncated()
        return [
            {PortKind.TOKEN_IDS: ids[None], PortKind.ATTENTION_MASK: mask[None]}
            for ids, mask in zip(encoding.ids, encoding.mask, strict=True)
        ]

    def _embed(self, encoder: Input[Any], made: Made) -> Floats:
        rows = self.run(encoder.component, {encoder.source: made})[encoder.output]
        return np.asarray(rows[0], dtype=np.float32)

    def run(self, component: str, made: Mapping[str, Made]) -> dict[str, Array]:
        """What a component gives, by output.

        Args:
            component: which.
            made: what the processors made, by processor and kind.

        Raises:
            BundleError: the variant has no such component.
            InputError: something that it takes was not made.
            BackendError: the engine failed, or gave an embedding or logits that cannot be right.
        """
        return self._graphs.run(component, made, check=not self._allow_non_finite)

    # --- tasks ---------------------------------------------------------------------------------------

    def match(self, media: MediaInput, texts: Sequence[str]) -> MatchReport:
        """How well each text fits a picture, or a sound.

        Args:
            media: a picture (see `open_image`), or a sound where the model listens (see `open_sound`).
            texts: any.

        Raises:
            InputError: the picture or sound or a text cannot be used, or there is no text.
            BundleError: the bundle has no such task, or one that this runtime cannot run.
            BackendError: the engine failed.
        """
        task_named(self.manifest, "match", ContrastiveTask)
        similarity, shares, timing = self._score("match", media, texts)
        results = tuple(
            TextScore(text, float(s), float(p)) for text, s, p in zip(texts, similarity, shares, strict=True)
        )
        return MatchReport(self.variant, results, timing)

    def classify(
        self,
        media: MediaInput,
        labels: Sequence[str] | None = None,
        templates: Sequence[str] | None = None,
    ) -> ClassifyReport:
        """How well each label fits a picture, or a sound.

        Args:
            media: a picture (see `open_image`), or a sound where the model listens (see `open_sound`).
            labels: by default the bundle's own.
            templates: texts with `{label}` in them, by default the bundle's one; of several, a label's
                embedding is the mean over all, L2-normalised again.

        Raises:
            InputError: the picture or sound, a label or a template cannot be used, or there are no labels.
            BundleError: the bundle has no such task, or one that this runtime cannot run.
            BackendError: the engine failed.
        """
        task = task_named(self.manifest, "classify", ContrastiveTask)
        chosen = task.labels if labels is None else labels
        if not chosen:
            raise InputError("this bundle has no labels of its own: give some")
        check_texts(chosen, "label")
        filled = (task.template or LABEL_SLOT,) if templates is None else templates
        if templates is not None:
            check_templates(templates)
        texts = [text for template in filled for text in label_texts(template, chosen)]
        similarity, shares, timing = self._score("classify", media, texts, len(filled))
        results = tuple(
            LabelScore(label, float(s), float(p))
            for label, s, p in zip(chosen, similarity, shares, strict=True)
        )
        return ClassifyReport(self.variant, results, timing)

    def ask(self, image: ImageInput, questions: str | Sequence[str], top: int = 5) -> AskReport:
        """The likeliest answers to questions about a picture, which is preprocessed once for all of them.

        Warns (TruncatedTextWarning) of questions that were cut.

        Args:
            image: see `ImageInput` and `open_image`.
            questions: one, or several.
            top: how many answers to each; all where the model knows fewer.

        Raises:
            InputError: the picture or a question cannot be used, there is no question, or `top` is below 1.
            BundleError: the bundle has no such task, or one that this runtime cannot run.
            BackendError: the engine failed.
        """
        task = task_named(self.manifest, "ask", LabelsTask)
        asked = [questions] if isinstance(questions, str) else questions
        check_texts(asked, "question")
        if not asked:
            raise InputError("at least one question is needed")
        if top < 1:
            raise InputError(f"top is {top}, and at least 1 answer must be wanted")
        seen_by, read_by = self._inputs["ask"]
        spent: dict[str, float] = {}
        start = time.perf_counter()
        pixels = self._preprocessed(image, seen_by, spent)
        with _clock(spent, "tokens"):
            encoded = self._encoded(read_by, asked)
        with _clock(spent, "fusion"):
            logits = [
                self.run(seen_by.component, {seen_by.source: pixels, read_by.source: made})[seen_by.output][0]
                for made in encoded
            ]
        with _clock(spent, "post"):
            results = tuple(
                QuestionAnswers(question, ranked_answers(task.labels, activated(row, task.activation), top))
                for question, row in zip(asked, logits, strict=True)
            )
        timing = AskTimingMs(**spent, total=1000 * (time.perf_counter() - start))
        return AskReport(self.variant, results, timing)

    def rerank(self, media: MediaInput, texts: Sequence[str], top: int | None = None) -> RerankReport:
        """How likely each text fits a picture, or a sound, by a component that reads both together.

        What is made of the picture is made once. Where the bundle says which task is reranked, `top` asks
        that first, and only the texts that it finds most similar are read together with the picture.

        Args:
            media: a picture (see `open_image`), or a sound where the model listens (see `open_sound`).
            texts: any.
            top: how many texts are read together with it; all by default.

        Raises:
            InputError: the picture or sound or a text cannot be used, there is no text, or `top` is below 1.
            BundleError: the bundle has no such task, or one that this runtime cannot run.
            BackendError: the engine failed.
        """
        task = task_named(self.manifest, "rerank", MatchTask)
        check_texts(texts)
        if not texts:
            raise InputError("at least one text is needed")
        if top is not None and top < 1:
            raise InputError(f"top is {top}, and at least 1 text must be wanted")
        seen_by, read_by = self._inputs["rerank"]
        spent: dict[str, float] = {}
        start = time.perf_counter()
        made = {seen_by.source: self._preprocessed(media, seen_by, spent)}
        with _clock(spent, "tokens"):
            encoded = self._encoded(read_by, texts)
        with _clock(spent, "image"):
            if seen_by.component != read_by.component:
                made |= self._graphs.given(seen_by.component, self.run(seen_by.component, made))
        with _clock(spent, "text"):
            similarity = None if top is None else self._compared(task, made, read_by, encoded, texts)
        chosen = range(len(texts)) if similarity is None else np.argsort(-similarity, kind="stable")[:top]
        with _clock(spent, "fusion"):
            logits = [
                self.run(read_by.component, {**made, read_by.source: encoded[row]})[read_by.output][0]
                for row in chosen
            ]
        with _clock(spent, "post"):
            fits = fit_probabilities(np.stack(logits), task)
            results = tuple(
                FittingText(
                    texts[chosen[row]],
                    float(fits[row]),
                    None if similarity is None else float(similarity[chosen[row]]),
                )
                for row in np.argsort(-fits, kind="stable")
            )
        timing = RerankTimingMs(**spent, total=1000 * (time.perf_counter() - start))
        return RerankReport(self.variant, results, timing)

    def _compared(
        self,
        task: MatchTask,
        made: Mapping[str, Made],
        read_by: Input[TextProcessor],
        encoded: Sequence[Made],
        texts: Sequence[str],
    ) -> Doubles:
        """Cosines [N] of the task that is reranked, of what was made of a picture or sound and its texts."""
        if task.reranks is None:
            raise BundleError("this bundle does not say which task is reranked: leave out top")
        task_named(self.manifest, task.reranks, ContrastiveTask)
        seen, read = self._inputs[task.reranks]
        embedding = made.get(seen.port)
        image = (
            self._embed(seen, made[seen.source])
            if embedding is None
            else np.asarray(embedding[PortKind.EMBEDDING][0], np.float32)
        )
        rows = encoded if read.source == read_by.source else self._encoded(read, texts)
        return similarities(image, self._embed_each(read, rows))

    def _preprocessed(self, media: MediaInput, taken_by: Input[Sensing], spent: dict[str, float]) -> Made:
        """A picture's pixels or a sound's spectrogram; adds what that took to `spent`, in milliseconds."""
        processor = taken_by.processor
        if isinstance(processor, AudioProcessor):
            with _clock(spent, "decode"):
                sound = open_sound(cast("AudioInput", media), processor)
            with _clock(spent, "preprocess"):
                features = log_mel(sound, processor)
            return {PortKind.AUDIO_FEATURES: features}
        if isinstance(media, Sound):
            raise InputError(f"{self.manifest.model.name} takes pictures, not sounds")
        with _clock(spent, "decode"):
            picture = open_image(media)
        with _clock(spent, "preprocess"):
            pixels = preprocess(picture, processor)
        return {PortKind.PIXELS: pixels[None]}

    def probabilities(self, task: str, similarity: Doubles) -> Doubles:
        """What a contrastive task makes of one picture's or sound's cosines [N] with texts: float64 [N]."""
        head = task_named(self.manifest, task, ContrastiveTask)
        scale = head.scale.first if head.first == self._inputs[task][0].port else head.scale.second
        return probabilities(similarity, scale, head.bias, head.activation)

    def _score(
        self, task: str, media: MediaInput, texts: Sequence[str], templates: int = 1
    ) -> tuple[Doubles, Doubles, TimingMs | AudioTimingMs]:
        """Of each text, or label in several templates, its cosine with the picture and its probability."""
        check_texts(texts)
        if not texts:
            raise InputError("at least one text is needed")
        seen_by, read_by = self._inputs[task]
        spent: dict[str, float] = {}
        start = time.perf_counter()
        listens = isinstance(seen_by.processor, AudioProcessor)
        made = self._preprocessed(media, seen_by, spent)
        with _clock(spent, "tokens"):
            encoded = self._encoded(read_by, texts)
        with _clock(spent, "audio" if listens else "image"):
            seen = self._embed(seen_by, made)
        with _clock(spent, "text"):
            read = self._embed_each(read_by, encoded)
        with _clock(spent, "post"):
            similarity = similarities(seen, ensembled(read, templates))
            shares = self.probabilities(task, similarity)
        spent["total"] = 1000 * (time.perf_counter() - start)
        return similarity, shares, AudioTimingMs(**spent) if listens else TimingMs(**spent)


@contextmanager
def _clock(spent: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    spent[stage] = 1000 * (time.perf_counter() - start)
