"""A board behind ssh: a Raspberry Pi, or any machine with 64-bit Linux and Python 3.11 or newer."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from pocketvl.devices.base import Abilities, BenchRequest
from pocketvl.devices.running import PROGRESS_OPTION, progress_of
from pocketvl.devices.runtime_wheel import Wheel, runtime_wheel
from pocketvl.devices.ssh_connection import CommandResult, SshConnection, SshTarget
from pocketvl_runtime.bench_result import BenchResult
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BackendError, library_text
from pocketvl_runtime.manifest import MANIFEST_FILE, Engine
from pocketvl_runtime.progress import Progress

_BUNDLE, _RUNTIME, _VENV = "bundle", "runtime", "venv"
_EXTRAS = {Engine.ONNX: "onnx", Engine.TFLITE: "litert"}
_ENGINE_MODULES = {Engine.ONNX: "onnxruntime", Engine.TFLITE: "ai_edge_litert"}
_MODULES = ("numpy", "PIL", "tokenizers", "click")
_LOOK = (
    "import importlib.util as u, json, sys; "
    "print(json.dumps({'there': [name for name in sys.argv[1:] if u.find_spec(name)]}))"
)
_PIP = (
    *("-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet"),
    *("--only-binary", ":all:"),  # building tokenizers on a board would take a Rust compiler, and hours
)
_TOLD_SHARE = 0.05
_QUICK_S, _INSTALL_S, _BENCH_S = 300.0, 3600.0, 24 * 3600.0


@dataclass(frozen=True)
class _File:
    path: str
    size: int
    sha256: str
    open: Callable[[], IO[bytes]]

    def listed(self) -> dict[str, object]:
        return {"path": self.path, "size": self.size, "sha256": self.sha256}


class SshDevice:
    """A device that the system's `ssh` reaches without a question.

    Entering copies the runtime's wheel and the bundle into ~/.cache/pocketvl-device there (or below
    XDG_CACHE_HOME), and makes a virtual environment with the engines that the bundle needs, unless a Python
    that has them is named. The place is always the same, so that the next connection takes up what a broken
    one left; leaving removes it.

    Args:
        bundle: to be measured.
        target: `[user@]host[:port]`.
        python: program on the device; it must have numpy, Pillow, tokenizers, click and an engine.
        keep: whether the folder stays there.

    Raises:
        InputError: the target is none.
    """

    tells_ops = True

    def __init__(
        self,
        bundle: Path,
        target: str,
        python: str | None = None,
        *,
        keep: bool = False,
    ) -> None:
        self._bundle = bundle
        self._target = SshTarget.parse(target)
        self._python = python
        self._keep = keep
        self.progress: Progress | None = None
        self._connection = SshConnection(self._target, python)
        self._command: tuple[str, ...] = ()
        self._env: dict[str, str] = {}

    @property
    def name(self) -> str:
        """The device's host name, as it was given."""
        return self._target.host

    def __enter__(self) -> Self:
        opened, wheel = Bundle.open(self._bundle), runtime_wheel()
        self._tell(f"connecting to {self._target}")
        self._connection.__enter__()
        try:
            self._copy([_content(wheel.name, wheel.content), *_bundle_files(opened)])
            if self._python is None:
                self._install(wheel, opened)
            else:
                self._take(self._python, wheel, opened)
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._connection.close(remove=not self._keep)
        except BackendError:  # the connection is broken, as the error that is on its way says
            if kind is None:
                raise
        finally:
            self._connection.__exit__()

    def abilities(self) -> Abilities:
        """What can run there; see `Device.abilities`."""
        said = self._runtime(["info", _BUNDLE, "--json"], "looking at the bundle", _QUICK_S)
        found = _object(said, self._target)
        variants = tuple(name for name, each in found["variants"].items() if each["runs_here"])
        return Abilities(variants, int(found["machine"]["usable_processors"]))

    def bench(self, request: BenchRequest, progress: Progress | None = None) -> BenchResult:
        """Runs one bench there; see `Device.bench`."""
        what = f"the bench of {', '.join(request.variants)}"
        options = [*request.arguments(), PROGRESS_OPTION]
        said = self._runtime(["bench", _BUNDLE, *options], what, request.timeout_s or _BENCH_S, progress)
        return BenchResult.from_json(said, f"the bench on {self._target}")

    def selftest(self, variants: Sequence[str] = (), timeout_s: float = _INSTALL_S) -> dict[str, Any]:
        """Checks the files there, and that the device gives the answers that the bundle promises.

        Args:
            variants: names; default: all that can run there.
            timeout_s: after which it is ended.

        Returns:
            What `pocketvl-run selftest --json` prints.

        Raises:
            BackendError: it does not pass, or cannot run.
        """
        chosen = [word for name in variants for word in ("--variant", name)]
        said = self._runtime(["selftest", _BUNDLE, "--json", *chosen], "the selftest", timeout_s)
        return _object(said, self._target)

    def _tell(self, what: str) -> None:
        self._tell_done(0, 1, what)

    def _tell_done(self, done: int, total: int, what: str) -> None:
        if self.progress is not None:
            self.progress(done, total, what)

    def _copy(self, files: Sequence[_File]) -> None:
        """Sends what is not there yet; each file is checked there before it gets its name."""
        have = self._connection.have([file.listed() for file in files])
        total, done = sum(file.size for file in files), sum(have)
        for file, start in zip(files, have, strict=True):
            if start == file.size:
                continue
            if not any(self._sent(file, first, done, total) for first in dict.fromkeys((start, 0))):
                raise BackendError(
                    f"{file.path} has another checksum at {self._target}: is {self._bundle} whole? "
                    "pocketvl-run selftest says so"
                )
            done += file.size - start

    def _sent(self, file: _File, start: int, done: int, total: int) -> bool:
        told = done

        def tell(sent: int) -> None:
            nonlocal told
            if done + sent - told >= _TOLD_SHARE * total or done + sent == total:
                told = done + sent
                self._tell_done(told, total, f"copying to {self._target}")

        with file.open() as content:
            return self._connection.put(
                file.path,
                content,
                file.size,
                file.sha256,
                start,
                tell,
            )

    def _install(self, wheel: Wheel, bundle: Bundle) -> None:
        """Makes the environment, unless a connection before this one has made the same."""
        extras = ",".join(sorted({_EXTRAS[spec.engine] for spec in bundle.manifest.variants.values()}))
        python = f"{self._connection.root}/{_VENV}/bin/python"
        self._command = (python,)
        made = _content(f"{_VENV}/.made", f"{hashlib.sha256(wheel.content).hexdigest()} {extras}\n".encode())
        if self._connection.have([made.listed()]) == [made.size]:
            return
        self._tell(f"making a virtual environment on {self._target}")
        done = self._connection.run(["python3", "-m", "venv", "--clear", _VENV], {}, _QUICK_S)
        if done.exit != 0:
            raise BackendError(
                f"{self._target} cannot make a virtual environment ({_last(done)}): install venv there "
                "(apt install python3-venv), or name a Python that has what is needed with --python"
            )
        self._tell(f"installing {extras.replace(',', ' and ')} on {self._target}: minutes")
        done = self._connection.run([python, *_PIP, f"./{wheel.name}[{extras}]"], {}, _INSTALL_S)
        if done.exit != 0:
            raise BackendError(
                f"pip cannot install the runtime on {self._target} ({_last(done)}): if that cannot reach a "
                "package index, name by --python one with numpy, Pillow, tokenizers, click and an engine"
            )
        self._copy([made])

    def _take(self, python: str, wheel: Wheel, bundle: Bundle) -> None:
        """Takes a Python that is there, with this runtime instead of any that it may have."""
        engines = {spec.engine for spec in bundle.manifest.variants.values()}
        names = {_ENGINE_MODULES[engine] for engine in engines}
        done = self._connection.run([python, "-c", _LOOK, *_MODULES, *sorted(names)], {}, _QUICK_S)
        if done.exit != 0:
            raise BackendError(f"{python} on {self._target} does not run: {_last(done)}")
        there = set(_object(done.stdout, self._target)["there"])
        missing = [name for name in _MODULES if name not in there]
        if not names & there:
            missing.append(" or ".join(sorted(names)))
        if missing:
            raise BackendError(
                f"{python} on {self._target} has no {', '.join(missing)}: install it there, "
                "or leave --python out, and an environment is made"
            )
        done = self._connection.run([python, "-m", "zipfile", "-e", wheel.name, _RUNTIME], {}, _QUICK_S)
        if done.exit != 0:
            raise BackendError(f"the runtime cannot be unpacked on {self._target}: {_last(done)}")
        self._command = (python,)
        self._env = {"PYTHONPATH": f"{self._connection.root}/{_RUNTIME}"}

    def _runtime(
        self, arguments: Sequence[str], what: str, timeout_s: float, progress: Progress | None = None
    ) -> str:
        """Runs a command of the runtime there, in a fresh process; gives what it printed."""
        said: list[str] = []

        def hear(line: str) -> None:
            news = progress_of(line)
            if news is None:
                said.append(line)
            elif progress is not None:
                progress(*news)

        command = [*self._command, "-P", "-m", "pocketvl_runtime", *arguments]
        done = self._connection.run(command, self._env, timeout_s, hear)
        if done.exit is None:
            raise BackendError(f"{what} on {self._target} took longer than {timeout_s:g} s and was ended")
        if done.exit != 0:
            why = said[-1].removeprefix("error: ") if said else f"exit status {done.exit}"
            raise BackendError(f"{what} on {self._target} failed: {why}")
        return done.stdout


def _bundle_files(bundle: Bundle) -> Iterator[_File]:
    """The manifest and what it lists: neither the report nor profiles are needed there."""
    yield _content(f"{_BUNDLE}/{MANIFEST_FILE}", (bundle.root / MANIFEST_FILE).read_bytes())
    for path, entry in bundle.manifest.files.items():
        place = bundle.file(path)
        yield _File(f"{_BUNDLE}/{path}", entry.bytes, entry.sha256, lambda place=place: place.open("rb"))  # type: ignore[misc]


def _content(path: str, content: bytes) -> _File:
    return _File(path, len(content), hashlib.sha256(content).hexdigest(), lambda: io.BytesIO(content))


def _object(text: str, target: SshTarget) -> dict[str, Any]:
    with suppress(ValueError):
        value = json.loads(text)
        if isinstance(value, dict):
            return value
    raise BackendError(
        f"{target} answers with something else than JSON: {shlex.quote(library_text(text, 80))}"
    )


def _last(done: CommandResult) -> str:
    """What a command that failed said last."""
    if done.exit is None:
        return "it took too long"
    errors = [line for line in done.stderr if line.lstrip().lower().startswith("error")]
    lines = errors or list(done.stderr) or done.stdout.strip().splitlines()[-1:]
    return library_text(lines[-1]) if lines else f"exit status {done.exit}"
