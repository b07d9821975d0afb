"""A phone on loopback, whose adb is the one on the path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.devices.phone import Phone, obstacle

StartPhone = Callable[..., Phone]


@pytest.fixture
def start_phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StartPhone]:
    """Starts a phone (arguments: those of `Phone` after its folder) that ends with the test."""
    if (reason := obstacle()) is not None:
        pytest.skip(reason)
    with ExitStack() as ends:

        def start(**settings: object) -> Phone:
            folder = tmp_path / "phone"
            folder.mkdir()
            phone = ends.enter_context(Phone(folder, **settings))  # type: ignore[arg-type]
            monkeypatch.setenv("PATH", str(phone.bin), prepend=":")
            return phone

        yield start
