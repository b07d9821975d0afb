"""A loaded variant: what becomes of pictures, sounds and texts, and their embeddings."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from pocketvl_runtime.audio import AudioInput, Sound, log_mel, open_sound
from pocketvl_runtime.backends import Array
from pocketvl_runtime.backends.recorder import Recorder
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BundleError, InputError
from pocketvl_runtime.image import ImageInput, open_image, preprocess
from pocketvl_runtime.loaded_graphs import LoadedGraphs, Made
from pocketvl_runtime.manifest import (
    AudioProcessor,
    ImageProcessor,
    Manifest,
    PortKind,
    TextProcessor,
)
from pocketvl_runtime.task_inputs import Input, Sensing, inputs_by_task, inputs_to_embed, wanted
from pocketvl_runtime.tasks import Floats
from pocketvl_runtime.text import Tokenizer

MediaInput: TypeAlias = ImageInput | AudioInput
"""A picture, or a sound where a model listens."""


class EmbeddingModel:
    """One variant of a bundle, loaded: its processors, its embeddings, and what its components give.

    It holds the components of the tasks that this runtime can run. May be asked from several threads at once.
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
            with clock(spent, "audio" if isinstance(encoder.processor, AudioProcessor) else "image"):
                self._embed(encoder, made)
        if text is not None:
            with clock(spent, "tokens"):
                encoded = self._encoded(self._text_encoder, [text])
            with clock(spent, "text"):
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

    def _preprocessed(self, media: MediaInput, taken_by: Input[Sensing], spent: dict[str, float]) -> Made:
        """A picture's pixels or a sound's spectrogram; adds what that took to `spent`, in milliseconds."""
        processor = taken_by.processor
        if isinstance(processor, AudioProcessor):
            with clock(spent, "decode"):
                sound = open_sound(cast("AudioInput", media), processor)
            with clock(spent, "preprocess"):
                features = log_mel(sound, processor)
            return {PortKind.AUDIO_FEATURES: features}
        if isinstance(media, Sound):
            raise InputError(f"{self.manifest.model.name} takes pictures, not sounds")
        with clock(spent, "decode"):
            picture = open_image(media)
        with clock(spent, "preprocess"):
            pixels = preprocess(picture, processor)
        return {PortKind.PIXELS: pixels[None]}


@contextmanager
def clock(spent: dict[str, float], stage: str) -> Iterator[None]:
    """Within it, milliseconds pass that are written down as the stage's."""
    start = time.perf_counter()
    yield
    spent[stage] = 1000 * (time.perf_counter() - start)
