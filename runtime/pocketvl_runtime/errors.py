"""The one error root of pocketvl, the three ways in which the device side can fail, and how it warns."""

from __future__ import annotations


class PocketVLError(Exception):
    """Root of every error that pocketvl raises on purpose; its message is one clear line."""


class BundleError(PocketVLError):
    """A bundle is missing, damaged, of an unknown schema, or does not hold what was asked of it."""


class InputError(PocketVLError):
    """A picture, a text or a setting that was handed in cannot be used."""


class BackendError(PocketVLError):
    """An inference engine is missing, refuses a graph, or fails while running it."""


class BackendWarning(UserWarning):
    """An engine answers rightly, but in a way that costs something: time, memory."""


class ImageWarning(UserWarning):
    """A picture is taken, though something of its file is damaged: how it was to be turned."""


def shortened(text: str, most: int) -> str:
    """A text of at most `most` characters: cut in the middle, since what to do about it stands at the end."""
    if len(text) <= most:
        return text
    tail = (most - 1) // 2
    return f"{text[: most - 1 - tail]}\u2026{text[len(text) - tail :]}"


def quoted(value: object) -> str:
    """A name or value out of a file, as an error quotes it: `repr`, at most 100 characters of it."""
    return shortened(repr(value), 100)


def library_text(error: object, most: int = 150) -> str:
    """What a library said, as an error quotes it: one line, at most `most` characters of it."""
    return shortened(" ".join(str(error).split()), most)
