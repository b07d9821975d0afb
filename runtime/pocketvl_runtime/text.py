"""From texts to the ids that the text graph takes, the same on host and device."""

from __future__ import annotations

import re
import string
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import tokenizers

from pocketvl_runtime.errors import BundleError, InputError, shortened
from pocketvl_runtime.manifest import MAX_TOKEN_ID, Canonical, Side, TextProcessor
from pocketvl_runtime.native_stderr import native_stderr
from pocketvl_runtime.obstacles import refuse_processor
from pocketvl_runtime.tokenizer_costs import LEAST_CHARS, expanded_chars, read_costs

MAX_TEXT_CHARS = 250_000
"""No text may have more characters; fewer where one can become many tokens (`Tokenizer.most_chars`)."""

_PUNCTUATION = str.maketrans("", "", string.punctuation)  # ASCII's


class TruncatedTextWarning(UserWarning):
    """A text has more tokens than the model reads; an end of it was cut off."""


@dataclass(frozen=True)
class Encoding:
    """Tokenized texts.

    Attributes:
        ids: int32 [N, T].
        mask: int32 [N, T], 1 where a token stands and 0 where padding does.
        lengths: int [N], the number of tokens of the whole text, specials included.
        truncated: bool [N], whether the text had more than T tokens.
    """

    ids: npt.NDArray[np.int32]
    mask: npt.NDArray[np.int32]
    lengths: npt.NDArray[np.int64]
    truncated: npt.NDArray[np.bool_]

    def warn_if_truncated(self) -> None:
        """Issues one `TruncatedTextWarning` for each text whose end was cut off."""
        limit = self.ids.shape[1]
        for index in np.flatnonzero(self.truncated):
            length = int(self.lengths[index])
            message = f"text {index} has {length} tokens and the model reads {limit}: its end was cut off"
            warnings.warn(message, TruncatedTextWarning, stacklevel=3)


class Tokenizer:
    """A tokenizer.json with the padding and truncation that the manifest asks for.

    Attributes:
        processor: what the manifest says of it.
        most_chars: how long a text may be, counted by `expanded_chars`, so that it takes at most 2 GB.
    """

    def __init__(self, tokenizer_json: bytes, processor: TextProcessor) -> None:
        """Loads it; whatever the file says of padding and truncation is set aside.

        Raises:
            BundleError: it is no tokenizer, could fill the memory, `max_length` leaves no room for text, or
                this runtime cannot run the processor.
        """
        refuse_processor(processor)
        length = processor.max_length
        costs = read_costs(tokenizer_json, processor.file, length)
        with _mapped(f"{processor.file} is not a tokenizer"):
            self._tokenizer = tokenizers.Tokenizer.from_buffer(tokenizer_json)
            self._specials = self._tokenizer.num_special_tokens_to_add(False)
        if self._specials >= length:
            raise BundleError(
                f"{processor.file}: {length} tokens leave no room beside {self._specials} specials"
            )
        with _mapped(f"{processor.file} is not a tokenizer"):
            self._tokenizer.no_padding()
            self._tokenizer.enable_truncation(length, direction=processor.truncate.value)
        self.processor = processor
        self.most_chars = costs.most_chars(length, self._specials)
        if self.most_chars < LEAST_CHARS:
            raise BundleError(f"{processor.file}: {self._specials} specials of {length} tokens are too many")

    def encode(self, texts: Sequence[str]) -> Encoding:
        """Tokenizes, cuts to T tokens (specials are kept) and pads to T.

        Raises:
            InputError: an item is not a string, is blank, too long, holds something that is not Unicode, or
                holds nothing that the tokenizer knows; the message says which.
            BundleError: the tokenizer fails, or gives ids that are none.
        """
        check_texts(texts)
        length = self.processor.max_length
        shape = (len(texts), length)
        ids = np.full(shape, self.processor.pad.id, dtype=np.int32)
        mask = np.zeros(shape, dtype=np.int32)
        lengths = np.zeros(len(texts), dtype=np.int64)
        for index, encoding in enumerate(self._encodings(texts)):
            count = len(encoding.ids)
            if count <= self._specials:
                raise InputError(f"text {index} ({_shown(texts[index])}) holds nothing the model can read")
            if count > length or max(encoding.ids) > MAX_TOKEN_ID:
                raise BundleError(
                    f"{self.processor.file} gives {count} tokens up to id {max(encoding.ids)}, and at most "
                    f"{length} up to {MAX_TOKEN_ID} are wanted"
                )
            where = slice(count) if self.processor.pad.side is Side.RIGHT else slice(length - count, length)
            ids[index, where] = encoding.ids
            mask[index, where] = 1
            lengths[index] = count + sum(len(rest.ids) - self._specials for rest in encoding.overflowing)
        return Encoding(ids, mask, lengths, lengths > length)

    def _encodings(self, texts: Sequence[str]) -> Iterator[tokenizers.Encoding]:
        """The library's encodings, made of so many texts at a time as together may be one."""
        for batch in self._batches(texts):
            with _mapped(f"{self.processor.file} fails at these texts"):
                encodings = self._tokenizer.encode_batch(batch)
            yield from encodings

    def _batches(self, texts: Sequence[str]) -> Iterator[list[str]]:
        batch: list[str] = []
        chars = 0
        for index, given in enumerate(texts):
            text = canonicalized(given, self.processor.canonicalize)
            expanded = expanded_chars(text)
            _check_chars(f"text {index}", expanded, self.most_chars)
            if batch and chars + expanded > self.most_chars:
                yield batch
                batch, chars = [], 0
            batch.append(text)
            chars += expanded
        if batch:
            yield batch


def canonicalized(text: str, steps: Sequence[Canonical]) -> str:
    """What is done to a text before it is tokenized.

    `lower` is Unicode's full lower case, `strip_punctuation` takes out ASCII's 32 marks, and
    `collapse_spaces` turns each run of white space into one space and takes it off both ends.
    """
    for step in steps:
        match step:
            case Canonical.LOWER:
                text = text.lower()
            case Canonical.STRIP_PUNCTUATION:
                text = text.translate(_PUNCTUATION)
            case Canonical.COLLAPSE_SPACES:
                text = re.sub(r"\s+", " ", text).strip()
    return text


@contextmanager
def _mapped(what: str) -> Iterator[None]:
    """Maps what the tokenizers library raises to BundleError; its panics are not even an Exception."""
    try:
        with native_stderr():
            yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise BundleError(f"{what} ({shortened(str(error), 150)})") from error


def check_texts(texts: Sequence[str], what: str = "text") -> None:
    """Checks what can be told without a tokenizer.

    Args:
        texts: what was handed in.
        what: what to call one of them in messages.

    Raises:
        InputError: not a sequence of strings, an item is blank, has more than `MAX_TEXT_CHARS`, or holds a
            lone surrogate, which is what bytes that are not UTF-8 become on a command line; the message says
            which.
    """
    if isinstance(texts, (str, bytes)) or not isinstance(texts, Sequence):
        raise InputError(f"{what}s must be a list of strings, not {type(texts).__name__}")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"{what} {index} is not a string but {type(text).__name__}")
        _check_chars(f"{what} {index}", len(text), MAX_TEXT_CHARS)
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            place = f"character {error.start} is {text[error.start]!a}"
            raise InputError(f"{what} {index} is not valid Unicode ({place}); pass UTF-8") from error
        if not text.strip():
            raise InputError(f"{what} {index} is empty")


def _check_chars(what: str, chars: int, most: int) -> None:
    if chars > most:
        raise InputError(f"{what} has {chars} characters, and at most {most} are read; shorten it")


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:37] + "...")
