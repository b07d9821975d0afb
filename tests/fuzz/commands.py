"""`pocketvl-run` with arguments that nobody should give: exit codes, one line, nothing on stdout."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import unicodedata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from pocketvl_runtime.cli import main
from tests.fuzz.target import Case, Finding
from tests.runtime.bundles import VARIANTS, edit_manifest, picture, write_bundle

_COMMANDS = ("info", "match", "classify", "embed", "selftest", "bench")
_ODD_COMMANDS = (
    "",
    "Info",
    "inf",
    "--",
    "-",
    "x\ny",
    "\x1b[31m",
    "-h",
    "--help",
    "--version",
    "--json",
    "\udcff",
)
_TEXTS = (
    "a red cube",
    "green",
    "cube " * 40,
    "",
    " ",
    "\udce9",
    "\x1b[31mred",
    "a\nb",
    "-",
    "--json",
    "%s",
    "{label}",
    "é",
)
_VARIANTS = (*VARIANTS, "", "onnx", "ONNX-FP32", "tflite-int8", "\x1b[31m", "../x", "x" * 5000, "\udcff")
_COUNTS = ("1", "2", "0", "-1", "257", "1e2", "1.0", "", "abc", "٣", "1_0", " 1", "0x1", "9" * 30, "\udcff")
_PROCESSES = 0.02


class Commands:
    """The device's command line, most of the time in this process."""

    name = "commands"

    def __init__(self, folder: Path) -> None:
        """Args: folder: to work in."""
        self._folder = folder
        whole = write_bundle(folder / "whole")
        for name in ("no-manifest", "no-json", "no-variant", "damaged", "no-golden"):
            shutil.copytree(whole, folder / name)
        (folder / "no-manifest" / "manifest.json").unlink()
        (folder / "no-json" / "manifest.json").write_text("{")
        edit_manifest(folder / "no-variant", lambda m: m.update(variants={}))
        (folder / "damaged" / "tokenizer.json").write_bytes(b"{}")
        (folder / "no-golden" / "golden" / "golden.json").unlink()
        picture((30, 20)).save(folder / "good.png")
        picture((30, 20), mode="RGBA").save(folder / "alpha.webp")
        (folder / "short.jpg").write_bytes((whole / "golden/images/wide.jpg").read_bytes()[:300])
        (folder / "text.png").write_text("no picture")
        (folder / "empty.png").touch()
        (folder / "a folder").mkdir()
        (folder / "loop").symlink_to("loop")

    def make(self, rng: random.Random) -> Case:
        """A command, a bundle and options, in any order, any of them odd or missing."""
        words = [rng.choice(_COMMANDS) if rng.random() < 0.95 else rng.choice(_ODD_COMMANDS)]
        parts = [
            [rng.choice(_BUNDLES) if rng.random() < 0.25 else "whole"] for _ in range(rng.random() < 0.96)
        ]
        parts += _needed(rng, words[0]) if rng.random() < 0.85 else []
        parts += [_option(rng) for _ in range(rng.choice((0, 0, 1, 1, 2, 4)))]
        rng.shuffle(parts)
        words += [word for part in parts for word in part]
        if rng.random() < 0.03:
            del words[rng.randrange(len(words))]
        by_itself = rng.random() < _PROCESSES
        what = f"{'a process: ' if by_itself else ''}pocketvl-run {words!a:.300}"
        return Case(what, {"arguments": f"{words!a}".encode()}, (words, by_itself))

    def check(self, case: Case) -> str:
        """Runs it; words are relative to the folder."""
        words, by_itself = case.options
        before = Path.cwd()
        os.chdir(self._folder)
        try:
            code, out, err = (_process if by_itself else _in_process)(words)
        finally:
            os.chdir(before)
        return _check(words, code, out, err)


_BUNDLES = (
    "no-manifest",
    "no-json",
    "no-variant",
    "damaged",
    "no-golden",
    "none",
    "",
    ".",
    "good.png",
    "loop",
    "\udcff",
    "x" * 300,
    "--",
)
_IMAGES = (
    "good.png",
    "alpha.webp",
    "short.jpg",
    "text.png",
    "empty.png",
    "a folder",
    "loop",
    "none",
    "",
    "-",
    "/dev/zero",
    "\x1b.png",
    "\udcff.png",
)


def _needed(rng: random.Random, command: str) -> list[list[str]]:
    """What a command cannot do without, mostly good."""
    image = ["--image", "good.png" if rng.random() < 0.8 else rng.choice(_IMAGES)]
    text = ["--text", rng.choice(_TEXTS[:3]) if rng.random() < 0.8 else rng.choice(_TEXTS)]
    needed = {"match": [image, text], "classify": [image], "embed": [image, text], "bench": [["--runs", "1"]]}
    return needed.get(command, [])


def _option(rng: random.Random) -> list[str]:
    options: dict[str, Sequence[str]] = {
        "--json": (),
        "--variant": _VARIANTS,
        "--threads": _COUNTS,
        "--image": _IMAGES,
        "--text": _TEXTS,
        "--label": _TEXTS,
        "--runs": ("1", "2", "0", "-1", "abc", "", "1.5"),
        "--help": (),
        "--version": (),
        "--nosuch": (),
        "--vari": _VARIANTS,
        "--": (),
        "-j": (),
        "@file": (),
        "--json=1": (),
        "\x1b[31m": (),
    }
    weights = (8, 8, 8, 5, 5, 5, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1)
    (name,) = rng.choices(list(options), weights)
    values = options[name]
    if not values:
        return [name]
    value = rng.choice(values[:2]) if rng.random() < 0.7 else rng.choice(values)
    return [f"{name}={value}"] if rng.random() < 0.1 else [name, value]


def _in_process(words: Sequence[str]) -> tuple[int, str, str]:
    """Runs the entry point as the installed command would, with streams of click's own runner."""
    before, code = sys.argv, 0
    with warnings.catch_warnings(), CliRunner().isolation() as (out, err, _):
        sys.argv = ["pocketvl-run", *words]
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 99
        finally:
            sys.argv = before
            sys.stdout.flush()
            sys.stderr.flush()
        return code, out.getvalue().decode("utf-8"), err.getvalue().decode("utf-8")


def _process(words: Sequence[str]) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pocketvl_runtime", *words],
        capture_output=True,
        encoding="utf-8",
        timeout=50,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def _check(words: Sequence[str], code: int, out: str, err: str) -> str:
    """Holds exit code, stdout and stderr against what is documented."""
    told = f"exit code {code}; stdout {out[:300]!a}; stderr {err[-500:]!a}"
    lines = [line for line in err.splitlines() if not line.startswith(("note: ", "warning: ", "INFO: "))]
    errors = [line for line in lines if line.startswith("error: ")]
    flags = _flags(words)
    asked = not flags.isdisjoint(("--help", "-h", "--version"))
    if code not in (0, 1, 2):
        raise Finding("an exit code that is none", told)
    if "Traceback" in err or "Traceback" in out:
        raise Finding("a traceback", told)
    if any(unicodedata.category(c) in ("Cc", "Cs") and c not in "\n\t" for c in out + err):
        raise Finding(f"control characters, exit code {code}", told)
    if code == 0:
        if errors:
            raise Finding("an error with exit code 0", told)
        if not asked:
            _check_answer(words[0], "--json" in flags, out, told)
        return "0, help" if asked else "0"
    if out and not (code == 1 and "selftest" in words and "selftest failed" in err):
        raise Finding(f"words on stdout with exit code {code}", told)
    if code == 1:
        if len(errors) != 1 or lines[-1:] != errors:
            raise Finding("not one line on stderr", told)
        if "error: unexpected " in err:
            raise Finding(f"an unexpected {err.split('unexpected ')[1].split(':')[0]}", told)
    elif not err.startswith("Usage: ") and not err.startswith("Error: "):
        raise Finding("wrong usage without a word about usage", told)
    return str(code)


def _flags(words: Sequence[str]) -> set[str]:
    """The words that click takes for options, and not for their values or for what comes after `--`."""
    flags: set[str] = set()
    rest = iter(words)
    for word in rest:
        if word == "--":
            break
        flags.add(word)
        if word in ("--variant", "--threads", "--image", "--text", "--label", "--runs"):
            next(rest, None)
    return flags


def _check_answer(command: str, as_json: bool, out: str, told: str) -> None:
    if not out.strip():
        raise Finding("no answer with exit code 0", told)
    if command == "embed" or as_json:
        lines = [out] if as_json else out.splitlines()
        try:
            values: list[Any] = [json.loads(line, parse_constant=_refuse) for line in lines]
        except ValueError as error:
            raise Finding("what is not JSON on stdout", told) from error
        if not all(isinstance(value, dict) for value in values):
            raise Finding("no JSON object on stdout", told)


def _refuse(name: str) -> None:
    raise ValueError(name)
