"""A phone behind adb: by the demo app's bench activity, or by a program that is copied there."""

from __future__ import annotations

import json
import re
import secrets
import shlex
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, Self

from pocketvl.devices.adb_shell import AdbShell
from pocketvl.devices.base import Abilities, BenchRequest
from pocketvl.devices.prepared_inputs import OUTPUT_SUFFIX, write_prepared_inputs, wrong_outputs
from pocketvl.devices.running import PROGRESS_OPTION
from pocketvl.stage import link_or_copy
from pocketvl_runtime.backends.versions import engine_release, release
from pocketvl_runtime.bench_result import BenchResult, Conditions, Machine
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BackendError, BundleError, PocketVLError, library_text
from pocketvl_runtime.manifest import MANIFEST_FILE, Engine
from pocketvl_runtime.progress import Progress

APP = "dev.pocketvl.demo"
APP_FILES = f"/sdcard/Android/data/{APP}/files"
TEMPORARY = "/data/local/tmp"
ANY = "-"
"""Stands for a serial number: the only phone there is."""
NEVER_RUN = "measured by a route that was never tried on a real phone"
"""A note on every result of the bench activity, until somebody has sent one in."""

_APP_PROCESS = f"{APP}:bench"
_POLL_S = 1.0
_START_S = 60.0
_THERMAL_STATUS = re.compile(r"^\s*Thermal Status:\s*(\d+)", re.MULTILINE)


class AdbPhone:
    """What both routes have: the bundle's TFLite variants are copied to the phone, and removed at the end.

    Args:
        bundle: the folder.
        serial: of the phone; None: the only one there is.
    """

    def __init__(self, bundle: Path, serial: str | None) -> None:
        self.progress: Progress | None = None
        self._bundle = Bundle.open(bundle)
        self._shell = AdbShell(serial)
        self._token = secrets.token_hex(6)
        self._variants = tuple(
            name for name, spec in self._bundle.manifest.variants.items() if spec.engine is Engine.TFLITE
        )
        if not self._variants:
            raise BackendError(f"{bundle} has no TFLite variant, and on phones only these are timed")

    @property
    def name(self) -> str:
        """The phone's serial number."""
        return self._shell.serial

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._remove()
        except PocketVLError:
            if error is None:  # else the first error is what matters, and the phone may be gone
                raise

    def abilities(self) -> Abilities:
        """The bundle's TFLite variants, and how many processors the phone's shell may use."""
        answer = self._shell.run("nproc", "counting its processors")
        count = int(answer.stdout) if answer.status == 0 and answer.stdout.strip().isdigit() else 1
        return Abilities(self._variants, max(1, count))

    def _remove(self) -> None:
        raise NotImplementedError

    def _files(self) -> Iterator[str]:
        """The files that the phone needs: all but the graphs of engines that it does not run."""
        variants = self._bundle.manifest.variants
        graphs = {path for spec in variants.values() for path in spec.paths}
        used = {path for name in self._variants for path in variants[name].paths}
        yield MANIFEST_FILE
        yield from (file for file in self._bundle.manifest.files if file in used or file not in graphs)

    def _push_bundle(self, target: str, inputs: str | None = None) -> None:
        """Copies the bundle to a folder of the phone, and prepared inputs to another."""
        self._bundle.verify(file for file in self._files() if file != MANIFEST_FILE)
        with tempfile.TemporaryDirectory(prefix="pocketvl-") as folder:
            staged = Path(folder, PurePosixPath(target).name)
            for file in self._files():
                place = staged / file
                place.parent.mkdir(parents=True, exist_ok=True)
                link_or_copy((self._bundle.root / file).resolve(), place)  # adb push would copy a link as one
            self._shell.push(staged, target)
            if inputs is not None:
                prepared = Path(folder, PurePosixPath(inputs).name)
                write_prepared_inputs(self._bundle, self._variants, prepared)
                self._shell.push(prepared, inputs)

    def _checked(self, text: str, thermal: int | None) -> BenchResult:
        """A result, with what only the computer can find out of the phone."""
        try:
            result = BenchResult.from_json(text, "what it wrote")
        except BundleError as error:
            self._shell.check_still_there("timing")
            raise BackendError(
                f"phone {self.name} gave no result as docs/BENCH.md has it ({library_text(error)}); "
                "update what runs there"
            ) from error
        for name, variant in result.variants.items():
            least = self._bundle.variant(name).min_engine
            if least and engine_release("tensorflow", variant.engine.version) < release(least):
                raise BackendError(
                    f"{variant.engine.name} {variant.engine.version} on phone {self.name} computes {name} "
                    f"wrongly: it needs LiteRT {least} or newer"
                )
        conditions = result.conditions
        if conditions is not None and conditions.throttled is None and thermal is not None:
            conditions = self._throttled(conditions, max(thermal, self._thermal_status() or 0))
        return replace(result, machine=self._named(result.machine), conditions=conditions)

    def _throttled(self, conditions: Conditions, status: int) -> Conditions:
        warnings = conditions.warnings
        if status:
            warnings += (f"Android's thermal status was {status}: the phone was slowed down by its heat",)
        return replace(conditions, throttled=status > 0, warnings=warnings)

    def _thermal_status(self) -> int | None:
        """Android's thermal status, 0 (none) to 6 (shutdown); None before Android 10, and elsewhere."""
        answer = self._shell.run("dumpsys thermalservice", "asking for its temperature")
        found = _THERMAL_STATUS.search(answer.stdout) if answer.status == 0 else None
        return int(found[1]) if found else None

    def _named(self, machine: Machine) -> Machine:
        """The machine with the names that Android has for it."""
        names = {
            name: self._shell.property(f"ro.{name}")
            for name in (
                "product.manufacturer",
                "product.model",
                "soc.model",
                "build.version.release",
                "kernel.qemu",
            )
        }
        if not names["product.model"]:
            return machine  # no Android
        return replace(
            machine,
            device=machine.device or f"{names['product.manufacturer']} {names['product.model']}".strip(),
            cpu=names["soc.model"] or machine.cpu,
            os=f"Android {names['build.version.release']}",
            emulated=machine.emulated or names["kernel.qemu"] == "1",
        )


class AdbBinary(AdbPhone):
    """A phone that runs a program with the command line of `pocketvl-run bench`, in a folder of its own.

    Args:
        bundle: the folder.
        serial: of the phone; None: the only one there is.
        binary: a program for the phone's processor; the libraries (*.so) in its folder are copied with it.

    Raises:
        BackendError: there is no such program, or no such phone.
    """

    tells_ops = True

    def __init__(self, bundle: Path, serial: str | None, binary: Path) -> None:
        if not binary.is_file():
            raise BackendError(f"{binary} is no program: build one as docs/PROFILING.md says")
        super().__init__(bundle, serial)
        self._binary = binary.resolve()
        self._root = f"{TEMPORARY}/pocketvl-{self._token}"

    def __enter__(self) -> Self:
        try:
            self._run(f"mkdir -p {self._root}/bin", "making a folder on it")
            for file in (self._binary, *sorted(self._binary.parent.glob("*.so"))):
                self._shell.push(file, f"{self._root}/bin/{file.name}")
            self._run(f"chmod 755 {self._program}", "copying to it")
            self._push_bundle(f"{self._root}/bundle", f"{self._root}/bundle.inputs")
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    @property
    def _program(self) -> str:
        return shlex.quote(f"{self._root}/bin/{self._binary.name}")

    def bench(self, request: BenchRequest, progress: Progress | None = None) -> BenchResult:
        """Runs the program once; see `Device`."""
        thermal = self._thermal_status()
        words = shlex.join([*request.arguments(), PROGRESS_OPTION])
        command = (
            f"cd {self._root} && echo $$ > pid && export LD_LIBRARY_PATH={self._root}/bin && "
            f"exec {self._program} bundle {words}"
        )
        answer = self._shell.run(command, "timing", request.timeout_s, progress)
        if answer.status != 0:
            raise BackendError(f"{self._binary.name} on phone {self.name}: {answer.last_line}")
        result = self._checked(answer.stdout, thermal)
        for variant in result.variants:
            for wrong in self._wrong_outputs(variant):
                result = _noted(result, [variant], wrong)
        return result

    def _wrong_outputs(self, variant: str) -> list[str]:
        """What of the program's first answer is not what the golden pack says; nothing where it left none."""
        inputs = f"{self._root}/bundle.inputs"
        listed = self._shell.run(f"ls {inputs}", "looking for outputs").stdout.split()
        with tempfile.TemporaryDirectory(prefix="pocketvl-") as folder:
            for file in listed:
                if file.startswith(f"{variant}.") and file.endswith(OUTPUT_SUFFIX):
                    self._shell.pull(f"{inputs}/{file}", Path(folder, file))
            return wrong_outputs(self._bundle, variant, Path(folder))

    def _run(self, command: str, doing: str) -> None:
        answer = self._shell.run(command, doing)
        if answer.status != 0:
            raise BackendError(f"phone {self.name}, {doing}: {answer.last_line}")

    def _remove(self) -> None:
        """Ends what still runs there, and removes the folder."""
        kill = f"test -f {self._root}/pid && kill $(cat {self._root}/pid) 2>/dev/null"
        self._run(f"{kill}; rm -rf {self._root}", f"removing {self._root}")


class AdbApp(AdbPhone):
    """A phone whose demo app measures (docs/ANDROID.md); the app is restarted for every bench.

    Args:
        bundle: the folder.
        serial: of the phone; None: the only one there is.
    """

    tells_ops = False  # the Java package has no profiler

    def __init__(self, bundle: Path, serial: str | None) -> None:
        super().__init__(bundle, serial)
        self._folder = f"pocketvl-{self._token}"
        self._target = f"{APP_FILES}/bundles/{self._folder}"
        self._out = f"{APP_FILES}/{self._folder}.json"

    def __enter__(self) -> Self:
        installed = self._shell.run(f"pm list packages {APP}", "looking for the demo app")
        if f"package:{APP}" not in installed.stdout.splitlines():
            raise BackendError(
                f"phone {self.name} has no {APP}: `adb -s {self.name} install pocketvl-demo.apk`, "
                "or give a program with --binary"
            )
        try:
            # A folder that the shell made might not be the app's to write into, so the app makes it.
            opened = f"am start -W -n {APP}/.BenchActivity; sleep 1; am force-stop {APP}"
            self._shell.run(f"test -d {APP_FILES} || {{ {opened}; }}", "opening the demo app once")
            self._shell.run(f"mkdir -p {APP_FILES}/bundles", "making a folder on it")
            self._push_bundle(self._target)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def bench(self, request: BenchRequest, progress: Progress | None = None) -> BenchResult:
        """Starts the activity in a fresh process and waits for its result; see `Device`."""
        thermal = self._thermal_status()
        deadline = None if request.timeout_s is None else time.monotonic() + request.timeout_s
        self._shell.run(f"rm -f {self._out} {self._out}.progress", "removing an old result")
        self._start(request)
        began = time.monotonic()
        while True:
            state = self._state()
            if state.get("error"):
                raise BackendError(f"{APP} on phone {self.name}: {library_text(state['error'])}")
            if state.get("written"):
                break
            if progress is not None and state.get("count"):
                progress(int(state["done"]), int(state["count"]), f"timing on {self.name}")
            now = time.monotonic()
            if deadline is not None and now > deadline:
                raise BackendError(
                    f"phone {self.name} took longer than {request.timeout_s:g} s while timing; "
                    "give it more time"
                )
            if not self._is_alive() and not self._state().get("written"):
                raise BackendError(
                    f"{APP} on phone {self.name} ended half-way, as it does when memory runs out: "
                    f"`adb -s {self.name} logcat -d` says more; measure fewer variants at once"
                )
            if not state and now - began > _START_S:
                raise BackendError(
                    f"{APP} on phone {self.name} began nothing: unlock the phone, "
                    "and install the app's newest version"
                )
            time.sleep(_POLL_S)
        result = self._checked(self._pulled(self._out), thermal)
        return _noted(result, result.variants, NEVER_RUN)

    def _pulled(self, file: str) -> str:
        """The text of a file on the phone."""
        with tempfile.TemporaryDirectory(prefix="pocketvl-") as folder:
            place = Path(folder, PurePosixPath(file).name)
            self._shell.pull(file, place)
            return place.read_text(encoding="utf-8", errors="replace")

    def _start(self, request: BenchRequest) -> None:
        words = ["am", "start", "-S", "-W", "-n", f"{APP}/.BenchActivity", *self._extras(request)]
        # am says what is wrong on either stream, and calls it a success or not as Android's versions like
        answer = self._shell.run(f"{shlex.join(words)} 2>&1; true", "starting its bench")
        if "Status: ok" not in answer.stdout:
            lines = answer.stdout.splitlines()
            reasons = [line for line in lines if "Error" in line or "Exception" in line]
            said = library_text((reasons or lines or ["no reason given"])[-1])
            raise BackendError(
                f"phone {self.name} did not start {APP}'s bench: {said}; "
                "unlock it, and install the app's newest version"
            )

    def _extras(self, request: BenchRequest) -> Iterable[str]:
        yield from ("--es", "bundle", self._folder, "--es", "out", PurePosixPath(self._out).name)
        yield from ("--es", "variants", ",".join(request.variants))
        yield from ("--es", "threads", ",".join(map(str, request.threads)))
        yield from ("--ei", "runs", str(request.runs), "--ei", "warmup_runs", str(request.warmup_runs))
        if request.duration_s:
            yield from ("--ef", "duration_s", f"{request.duration_s:g}")
        if request.samples:
            yield from ("--ez", "samples", "true")

    def _state(self) -> dict[str, Any]:
        """What the activity last told; empty: nothing yet."""
        answer = self._shell.run(f"cat {self._out}.progress", "timing")
        try:
            state = json.loads(answer.stdout) if answer.status == 0 else {}
        except ValueError:
            return {}
        return state if isinstance(state, dict) else {}

    def _is_alive(self) -> bool:
        return self._shell.run(f"pidof {_APP_PROCESS}", "timing").status == 0

    def _remove(self) -> None:
        answer = self._shell.run(
            f"am force-stop {APP}; rm -rf {self._target} {self._out} {self._out}.progress",
            "removing what was copied to it",
        )
        if answer.status != 0:
            raise BackendError(
                f"phone {self.name}: {self._target} could not be removed ({answer.last_line}); "
                "remove it yourself"
            )


def adb_device(bundle: Path, serial: str, binary: str | None) -> AdbBinary | AdbApp:
    """A phone, by the route that fits: a program where one is given, else the demo app.

    Args:
        bundle: the folder.
        serial: of the phone; `ANY`: the only one there is.
        binary: path of the program.
    """
    named = None if serial == ANY else serial
    return AdbApp(bundle, named) if binary is None else AdbBinary(bundle, named, Path(binary))


def _noted(result: BenchResult, variants: Collection[str], note: str) -> BenchResult:
    """The result with a note on some of its variants."""
    noted = {
        name: replace(variant, notes=(*variant.notes, note)) if name in variants else variant
        for name, variant in result.variants.items()
    }
    return replace(result, variants=noted)
