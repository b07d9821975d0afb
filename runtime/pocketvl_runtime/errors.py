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
