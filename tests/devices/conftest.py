"""A phone on loopback, whose adb is the one on the path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.devices import bench_program
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


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """android_demo/bench_binary, built, with TFLite's library beside it."""
    if (reason := bench_program.obstacle()) is not None:
        pytest.skip(reason)
    return bench_program.build(tmp_path_factory.mktemp("program"))
