"""How devices are named on the command line: one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pocketvl.devices.base import Device
from pocketvl_runtime.errors import InputError


@dataclass(frozen=True)
class Option:
    """An option of a command.

    Attributes:
        name: without dashes.
        metavar: what it takes.
        help: what it means.
    """

    name: str
    metavar: str
    help: str


@dataclass(frozen=True)
class Route:
    """A way to reach a device.

    Attributes:
        place: the option that names the device.
        program: the option that names the program that runs there.
        open: makes the device of the bundle, the place and the program, which may be None.
    """

    place: Option
    program: Option
    open: Callable[[Path, str, str | None], Device]


ROUTES: tuple[Route, ...] = ()


def open_device(bundle: Path, chosen: Mapping[str, str | None]) -> Device:
    """The device that options name; without any, this machine.

    Args:
        bundle: to be timed.
        chosen: values of the options of all routes, by name.

    Raises:
        InputError: they name several, or a program without a place.
    """
    named = [route for route in ROUTES if chosen.get(route.place.name)]
    if len(named) > 1:
        options = " and ".join(f"--{route.place.name}" for route in named)
        raise InputError(f"{options} name two devices; profile them one after the other")
    for route in ROUTES:
        if chosen.get(route.program.name) and route not in named:
            raise InputError(f"--{route.program.name} goes with --{route.place.name}, which is missing")
    if not named:
        from pocketvl.devices.local import LocalDevice

        return LocalDevice(bundle)
    (route,) = named
    return route.open(bundle, chosen[route.place.name] or "", chosen.get(route.program.name))
