"""How a device is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketvl.devices import routes
from pocketvl.devices.local import LocalDevice
from pocketvl.devices.routes import Option, Route, open_device
from pocketvl_runtime.errors import InputError

ONE, OTHER = (
    Route(
        Option(place, "X", ""), Option(program, "X", ""), lambda bundle, where, program: LocalDevice(bundle)
    )
    for place, program in (("boat", "captain"), ("train", "driver"))
)


def test_without_a_name_it_is_this_machine(tmp_path: Path) -> None:
    assert open_device(tmp_path, {}).name == "local"


def test_one_device_is_opened_with_its_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[Path, str, str | None]] = []

    def to_boat(bundle: Path, place: str, program: str | None) -> LocalDevice:
        opened.append((bundle, place, program))
        return LocalDevice(bundle)

    boat = Route(ONE.place, ONE.program, to_boat)
    monkeypatch.setattr(routes, "ROUTES", (boat, OTHER))
    open_device(tmp_path, {"boat": "b", "captain": None, "train": None, "driver": None})
    open_device(tmp_path, {"boat": "b", "captain": "c"})
    assert opened == [(tmp_path, "b", None), (tmp_path, "b", "c")]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"boat": "b", "train": "t"}, "--boat and --train name two devices"),
        ({"captain": "c"}, "--captain goes with --boat, which is missing"),
        ({"boat": "b", "driver": "d"}, "--driver goes with --train, which is missing"),
    ],
)
def test_what_does_not_go_together_is_refused(
    chosen: dict[str, str | None], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "ROUTES", (ONE, OTHER))
    with pytest.raises(InputError, match=message):
        open_device(tmp_path, chosen)
