"""Processors: how pictures, texts and sounds become what graphs take."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeAlias

from pocketvl_runtime.errors import BundleError, quoted
from pocketvl_runtime.manifest.names import MAX_PIXELS, MAX_TOKEN_ID, TOKENIZER_FILE, check_relative_path
from pocketvl_runtime.schema import OPTIONAL

MAX_LENGTH = 65_536
"""No text has more tokens."""

_MAX_SAMPLES = 2**26


class ResizeMode(StrEnum):
    """The edge modes keep the aspect ratio and set an edge to `size`; `exact` stretches to height x width."""

    SHORTEST_EDGE = "shortest_edge"
    LONGEST_EDGE = "longest_edge"
    EXACT = "exact"


class Filter(StrEnum):
    """Pillow's resampling filters."""

    NEAREST = "nearest"
    BOX = "box"
    BILINEAR = "bilinear"
    HAMMING = "hamming"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


class Rounding(StrEnum):
    """How a number of pixels becomes an integer."""

    FLOOR = "floor"
    HALF_UP = "half_up"
    HALF_EVEN = "half_even"


class Orientation(StrEnum):
    """Whether a picture is turned as its EXIF data say."""

    EXIF = "exif"
    AS_STORED = "as_stored"


class Alpha(StrEnum):
    """What becomes of transparency: laid on white, or left out of account."""

    OVER_WHITE = "over_white"
    DROP = "drop"


class Color(StrEnum):
    """Order of a pixel's channels."""

    RGB = "rgb"


class Layout(StrEnum):
    """Order of the axes of pixels."""

    NHWC = "nhwc"


class Anchor(StrEnum):
    """Where a picture lies in a padded one."""

    TOP_LEFT = "top_left"
    CENTER = "center"


@dataclass(frozen=True)
class Resize:
    """Resamples a picture.

    Attributes:
        filter: which; `antialias` widens it where the picture becomes smaller, as Pillow always does.
        rounding: of the edge that follows from the aspect ratio.
        size: pixels of the named edge, in the edge modes.
        height, width: pixels, in mode `exact`.
    """

    mode: ResizeMode
    filter: Filter
    antialias: bool
    rounding: Rounding
    size: int | None = field(default=None, metadata=OPTIONAL)
    height: int | None = field(default=None, metadata=OPTIONAL)
    width: int | None = field(default=None, metadata=OPTIONAL)
    op: Literal["resize"] = "resize"

    def __post_init__(self) -> None:
        exact = self.mode is ResizeMode.EXACT
        if (self.size is None) != exact or (self.height is None) == exact or (self.width is None) == exact:
            wanted = "height and width" if exact else "size"
            raise BundleError(f"a resize of mode {self.mode.value!r} takes {wanted}, and nothing else")
        edge = self.size or 0
        _check_size(self.height or edge, self.width or edge)

    def size_after(self) -> tuple[int, int] | None:
        """Height and width of what it makes; None where they depend on the picture."""
        return (self.height, self.width) if self.height and self.width else None


@dataclass(frozen=True)
class CenterCrop:
    """Cuts height x width out of the middle; what lies outside the picture is black.

    Attributes:
        rounding: of the offsets `(size - crop) / 2`.
    """

    height: int
    width: int
    rounding: Rounding
    op: Literal["center_crop"] = "center_crop"

    def __post_init__(self) -> None:
        _check_size(self.height, self.width)

    def size_after(self) -> tuple[int, int]:
        """Height and width of what it makes."""
        return self.height, self.width


@dataclass(frozen=True)
class Pad:
    """Puts a picture that is at most height x width into one of that size, filled with a colour."""

    height: int
    width: int
    anchor: Anchor
    value: tuple[int, int, int]
    op: Literal["pad"] = "pad"

    def __post_init__(self) -> None:
        _check_size(self.height, self.width)
        if not all(0 <= each <= 255 for each in self.value):
            raise BundleError(f"value {quoted(list(self.value))} must be three numbers from 0 to 255")

    def size_after(self) -> tuple[int, int]:
        """Height and width of what it makes."""
        return self.height, self.width


ImageStep: TypeAlias = Resize | CenterCrop | Pad


@dataclass(frozen=True)
class PixelsOutput:
    """What the image graph takes."""

    dtype: Literal["uint8"]
    layout: Layout
    shape: tuple[int, int, int, int]


@dataclass(frozen=True)
class Normalization:
    """What the graph itself does to pixels: `(pixel * rescale - mean) / std` per channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    rescale: float

    def __post_init__(self) -> None:
        if any(value == 0 for value in self.std):
            raise BundleError("std must not be 0")


@dataclass(frozen=True)
class ImageProcessor:
    """How a picture becomes pixels, and what the image graph itself then does to them.

    Attributes:
        steps: in order; the last ones leave every picture at `output`'s height and width.
        normalized_in_graph: for whoever wants to know; a reader hands the pixels over as they are.
    """

    steps: tuple[ImageStep, ...]
    output: PixelsOutput
    normalized_in_graph: Normalization
    orientation: Orientation = Orientation.EXIF
    alpha: Alpha = Alpha.OVER_WHITE
    color: Color = Color.RGB
    kind: Literal["image"] = "image"

    def __post_init__(self) -> None:
        made: tuple[int, int] | None = None
        for step in self.steps:
            made = step.size_after()
        if made is None:
            raise BundleError(
                "steps leave pictures of several sizes; an exact resize, a center_crop or a pad must follow"
            )
        if self.output.shape != (1, *made, 3):
            raise BundleError(f"output.shape is {list(self.output.shape)}, and steps make {[1, *made, 3]}")

    @property
    def height(self) -> int:
        """Height in pixels of what the image graph takes."""
        return self.output.shape[1]

    @property
    def width(self) -> int:
        """Width in pixels of what the image graph takes."""
        return self.output.shape[2]

    @classmethod
    def bicubic(
        cls,
        mode: ResizeMode,
        size: tuple[int, int],
        crop: tuple[int, int] | None,
        normalization: Normalization,
    ) -> ImageProcessor:
        """What CLIP and its kin do: `resampled` by the bicubic filter."""
        return cls.resampled(Filter.BICUBIC, mode, size, crop, normalization)

    @classmethod
    def resampled(
        cls,
        by: Filter,
        mode: ResizeMode,
        size: tuple[int, int],
        crop: tuple[int, int] | None,
        normalization: Normalization,
        crop_rounding: Rounding = Rounding.FLOOR,
    ) -> ImageProcessor:
        """An antialiased resize, then a centre crop.

        Args:
            by: the filter of the resize.
            mode: of the resize.
            size: its height and width; in the edge modes both are that edge.
            crop: height and width, if there is a crop.
            normalization: what the graph does.
            crop_rounding: of the crop's offsets.

        Raises:
            BundleError: the sizes are impossible.
        """
        height, width = size
        rounding = Rounding.FLOOR
        if mode is ResizeMode.EXACT:
            resize = Resize(mode, by, True, rounding, height=height, width=width)
        elif height != width:
            raise BundleError(f"with {mode.value}, the resize's height and width are the same edge")
        else:
            resize = Resize(mode, by, True, rounding, size=height)
        steps: tuple[ImageStep, ...] = (resize, CenterCrop(*crop, crop_rounding)) if crop else (resize,)
        output = PixelsOutput("uint8", Layout.NHWC, (1, *(crop or size), 3))
        return cls(steps, output, normalization)


class Side(StrEnum):
    """An end of a text."""

    RIGHT = "right"
    LEFT = "left"


class Canonical(StrEnum):
    """What is done to a text before it is tokenized."""

    LOWER = "lower"
    STRIP_PUNCTUATION = "strip_punctuation"
    COLLAPSE_SPACES = "collapse_spaces"


@dataclass(frozen=True)
class Padding:
    """The id that fills a short text up, and at which end."""

    id: int
    side: Side = Side.RIGHT

    def __post_init__(self) -> None:
        if not 0 <= self.id <= MAX_TOKEN_ID:
            raise BundleError(f"id {quoted(self.id)} must be 0 to {MAX_TOKEN_ID}")


class SegmentKind(StrEnum):
    """What stands at a place of a prompt."""

    LITERAL = "literal"
    IMAGE = "image"
    TEXT = "text"


@dataclass(frozen=True)
class PromptSegment:
    """A part of the prompt: a literal text, or the place of the picture or of what the user asks."""

    kind: SegmentKind
    text: str | None = field(default=None, metadata=OPTIONAL)

    def __post_init__(self) -> None:
        if (self.text is not None) != (self.kind is SegmentKind.LITERAL):
            raise BundleError("text goes with kind 'literal', and with no other")


@dataclass(frozen=True)
class TextProcessor:
    """How a text becomes ids.

    Attributes:
        max_length: T; a text is padded, or cut, to as many tokens, specials included.
        pad: with what and at which end a short text is filled up.
        truncate: which end of a long text is cut off; specials are kept.
        canonicalize: what is done first, in order.
        prompt: what stands around the text, and where the picture does; empty: the text alone.
        file: a tokenizer.json of the tokenizers library.
    """

    max_length: int
    pad: Padding
    truncate: Side = Side.RIGHT
    canonicalize: tuple[Canonical, ...] = ()
    prompt: tuple[PromptSegment, ...] = ()
    file: str = TOKENIZER_FILE
    kind: Literal["tokenizers"] = "tokenizers"

    def __post_init__(self) -> None:
        if not 1 <= self.max_length <= MAX_LENGTH:
            raise BundleError(f"max_length {quoted(self.max_length)} must be 1 to {MAX_LENGTH}")
        check_relative_path(self.file)

    @property
    def pad_id(self) -> int:
        """The id that fills a short text up."""
        return self.pad.id


class AudioPad(StrEnum):
    """How a short sound is filled up: repeated whole and then with silence, or with silence alone."""

    REPEAT = "repeat"
    ZEROS = "zeros"


class Longer(StrEnum):
    """What of a long sound is taken."""

    FIRST_WINDOW = "first_window"


class Window(StrEnum):
    """The window function of the short-time Fourier transform, periodic."""

    HANN = "hann"


class MelScale(StrEnum):
    """Which mel scale; Slaney's filters have equal areas, HTK's equal heights."""

    SLANEY = "slaney"
    HTK = "htk"


@dataclass(frozen=True)
class AudioOutput:
    """What the audio graph takes."""

    dtype: Literal["float32"]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class AudioProcessor:
    """How a sound becomes a log-mel spectrogram in dB.

    Attributes:
        rate: samples a second, mono.
        n_fft, hop: of the short-time Fourier transform, centred, with reflection at the ends; samples.
        mels, low_hz, high_hz, mel_scale: of the mel filters.
        samples: every sound is made this long.
    """

    rate: int
    n_fft: int
    hop: int
    mels: int
    low_hz: float
    high_hz: float
    mel_scale: MelScale
    window: Window
    samples: int
    pad: AudioPad
    longer: Longer
    output: AudioOutput
    kind: Literal["log_mel"] = "log_mel"

    def __post_init__(self) -> None:
        numbers = (self.rate, self.n_fft, self.hop, self.mels, self.samples)
        if not all(1 <= number <= _MAX_SAMPLES for number in numbers):
            raise BundleError(f"rate, n_fft, hop, mels and samples must be 1 to {_MAX_SAMPLES}")
        frames = self.samples // self.hop + 1
        if math.prod(self.output.shape) != frames * self.mels:
            raise BundleError(
                f"output.shape is {quoted(list(self.output.shape))}, and {frames} x {self.mels} come out"
            )


Processor: TypeAlias = ImageProcessor | TextProcessor | AudioProcessor


def _check_size(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise BundleError(f"sizes must be at least 1, not {quoted([height, width])}")
    if height * width > MAX_PIXELS:
        raise BundleError(f"sizes {quoted([height, width])} make more than {MAX_PIXELS} pixels")
