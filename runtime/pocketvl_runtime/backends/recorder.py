"""A backend that remembers what it was given."""

from __future__ import annotations

from collections.abc import Mapping

from pocketvl_runtime.backends import Array, Backend


class Recorder:
    """A backend that runs another and keeps what it was last given.

    Attributes:
        backend: the other.
        inputs: empty where it was never run.
    """

    def __init__(self, backend: Backend) -> None:
        self.name, self.notes = backend.name, backend.notes
        self.backend = backend
        self.inputs: dict[str, Array] = {}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Backend.run`."""
        self.inputs = dict(inputs)
        return self.backend.run(inputs)
