"""`load` a bundle, and ask it."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pocketvl_runtime.backends import can_run, cannot_run
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.embedding import EmbeddingModel, MediaInput, clock
from pocketvl_runtime.errors import BackendWarning, BundleError, InputError
from pocketvl_runtime.image import ImageInput
from pocketvl_runtime.loaded_graphs import Made
from pocketvl_runtime.manifest import (
    AudioProcessor,
    ContrastiveTask,
    LabelsTask,
    MatchTask,
    PortKind,
    TextProcessor,
)
from pocketvl_runtime.manifest.tasks import LABEL_SLOT
from pocketvl_runtime.obstacles import task_named
from pocketvl_runtime.prompts import check_templates, ensembled
from pocketvl_runtime.task_inputs import Input
from pocketvl_runtime.tasks import (
    AskReport,
    AskTimingMs,
    AudioTimingMs,
    ClassifyReport,
    Doubles,
    FittingText,
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
from pocketvl_runtime.text import check_texts
from pocketvl_runtime.variant_choice import default_threads, default_variant, runnable_variants


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


class Model(EmbeddingModel):
    """One variant of a bundle, loaded; made by `load`. May be asked from several threads at once."""

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
        with clock(spent, "tokens"):
            encoded = self._encoded(read_by, asked)
        with clock(spent, "fusion"):
            logits = [
                self.run(seen_by.component, {seen_by.source: pixels, read_by.source: made})[seen_by.output][0]
                for made in encoded
            ]
        with clock(spent, "post"):
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
        with clock(spent, "tokens"):
            encoded = self._encoded(read_by, texts)
        with clock(spent, "image"):
            if seen_by.component != read_by.component:
                made |= self._graphs.given(seen_by.component, self.run(seen_by.component, made))
        with clock(spent, "text"):
            similarity = None if top is None else self._compared(task, made, read_by, encoded, texts)
        chosen = range(len(texts)) if similarity is None else np.argsort(-similarity, kind="stable")[:top]
        with clock(spent, "fusion"):
            logits = [
                self.run(read_by.component, {**made, read_by.source: encoded[row]})[read_by.output][0]
                for row in chosen
            ]
        with clock(spent, "post"):
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
        with clock(spent, "tokens"):
            encoded = self._encoded(read_by, texts)
        with clock(spent, "audio" if listens else "image"):
            seen = self._embed(seen_by, made)
        with clock(spent, "text"):
            read = self._embed_each(read_by, encoded)
        with clock(spent, "post"):
            similarity = similarities(seen, ensembled(read, templates))
            shares = self.probabilities(task, similarity)
        spent["total"] = 1000 * (time.perf_counter() - start)
        return similarity, shares, AudioTimingMs(**spent) if listens else TimingMs(**spent)
