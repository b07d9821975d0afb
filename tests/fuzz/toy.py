"""A target of which a test says what comes of it."""

from __future__ import annotations

import random

from tests.fuzz.target import Case


class Toy:
    """Every case has a number of its own."""

    name = "toy"

    def make(self, rng: random.Random) -> Case:
        """A case that its number can be told by."""
        return Case(f"number {rng.random()}", {"folder/input": b"input"})

    def check(self, case: Case) -> str:
        """Fails: the last digit of its number is 7."""
        if case.what.endswith("7"):
            raise ValueError("7")
        return "good"
