"""Exceptions of the exporter, under the runtime's base class."""

from __future__ import annotations

from pocketvl_runtime.errors import PocketVLError


class SourceError(PocketVLError):
    """A checkpoint folder cannot be opened or is of no family that pocketvl knows."""


class DataError(PocketVLError):
    """A dataset folder is missing, malformed or too small for what was asked of it."""


class RecipeError(PocketVLError):
    """A recipe or a setting is not valid; raised before anything runs."""


class StageError(PocketVLError):
    """A stage's requirements or guarantees do not hold, or its cache cannot be used."""


class LoweringError(PocketVLError):
    """A graph cannot be lowered, or what was lowered holds an op that no device engine runs."""


class TrainingError(PocketVLError):
    """Training cannot start or go on (diverged, wrong checkpoint, no data)."""


class GateError(PocketVLError):
    """A variant lost more than its allowance.

    Attributes:
        failures: one line per failed figure: variant, metric, measured, allowed.
    """

    def __init__(self, failures: tuple[str, ...]) -> None:
        more = f" (and {len(failures) - 1} more in the report)" if len(failures) > 1 else ""
        super().__init__(f"the gate failed: {failures[0]}{more}")
        self.failures = failures
