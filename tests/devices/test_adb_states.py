"""What is said where adb sees no phone that can be used: states that adbd on loopback cannot be brought into.

A stand-in for adb lists them as adb does; everything else is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pocketvl.devices.adb import adb_device
from pocketvl.devices.adb_shell import AdbShell
from pocketvl_runtime.errors import BackendError

ListPhones = Callable[..., None]


@pytest.fixture
def adb_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ListPhones:
    """Puts an adb onto the path that lists phones ("SERIAL<tab>STATE") and does nothing else."""

    def write(*phones: str, status: int = 0, error: str = "") -> None:
        listing = tmp_path / "listing"
        listing.write_text("List of devices attached\n" + "".join(f"{phone}\n" for phone in phones) + "\n")
        script = tmp_path / "adb"
        script.write_text(
            f'#!/bin/sh\n[ "$1" = devices ] || exit 9\ncat {listing}\necho "{error}" >&2\nexit {status}\n'
        )
        script.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    return write


def said(serial: str | None = None) -> str:
    with pytest.raises(BackendError) as caught:
        AdbShell(serial)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("state", "advice"),
    [
        ("unauthorized", "has not allowed this computer: unlock it"),
        ("offline", "does not answer adb: unplug it"),
        ("authorizing", "unlock it and accept"),
        ("recovery", "restart it"),
        (
            "no permissions (missing udev rules? user is in the plugdev group); see [http://x]",
            "install udev rules",
        ),
        ("rescue", "is in state 'rescue'"),
    ],
)
def test_a_phone_that_is_not_ready_says_what_to_do(adb_lists: ListPhones, state: str, advice: str) -> None:
    adb_lists(f"4A111\t{state}")
    assert said().startswith("phone 4A111 ")
    assert advice in said("4A111")


def test_of_two_phones_one_must_be_named(adb_lists: ListPhones) -> None:
    adb_lists("4A111\tdevice", "emulator-5554\toffline")
    assert said() == (
        "adb sees several phones: 4A111 (device), emulator-5554 (offline); name one with --adb SERIAL"
    )
    assert AdbShell("4A111").serial == "4A111"


def test_the_only_phone_is_taken(adb_lists: ListPhones) -> None:
    adb_lists("4A111\tdevice")
    assert AdbShell().serial == "4A111"


def test_a_phone_that_is_not_there_is_told_with_those_that_are(adb_lists: ListPhones) -> None:
    adb_lists("4A111\tdevice")
    assert said("5B222") == "adb sees no phone 5B222; it sees 4A111 (device)"
    adb_lists()
    assert said("5B222") == "adb sees no phone 5B222; it sees none"
    assert "connect one" in said()


def test_an_adb_that_fails_is_told(adb_lists: ListPhones) -> None:
    adb_lists(status=1, error="error: protocol fault")
    assert "adb cannot list phones (error: protocol fault)" in said()


def test_a_computer_without_adb_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no adb on this computer" in said()


def test_a_dash_stands_for_the_only_phone(adb_lists: ListPhones, tmp_path: Path) -> None:
    adb_lists("4A111\tdevice")
    program = tmp_path / "program"
    program.touch()
    bundle = Path(__file__).parents[1] / "bundles" / "format-2.0"
    assert adb_device(bundle, "-", str(program)).name == "4A111"
    assert adb_device(bundle, "-", None).name == "4A111"
