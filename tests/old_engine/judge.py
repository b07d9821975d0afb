"""Runs the golden self-test of every TFLite variant on one engine, and holds `min_engine` against that.

    python -m tests.old_engine.judge --engine tensorflow BUNDLE ...

It needs the runtime and the engine, and neither torch nor pytest, so that it runs beside an engine of years
ago. A variant that `min_engine` lets in must pass, with XNNPACK and with the engine's own kernels, since a
phone may have either. One that `min_engine` keeps out is run all the same, to show what it is kept from.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import numpy as np

from pocketvl_runtime import backends, selftest
from pocketvl_runtime.backends import litert, versions
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import PocketVLError
from pocketvl_runtime.manifest import Engine, Precision
from pocketvl_runtime.model import load


class Kernels(StrEnum):
    """What computes a graph's ops."""

    XNNPACK = "XNNPACK"
    BUILTIN = "own kernels"


class Verdict(StrEnum):
    """What comes of a variant on an engine."""

    PASSED = "passed"
    REFUSED = "refused by min_engine"
    WRONG = "WRONG: let in by min_engine"


@dataclass(frozen=True)
class Outcome:
    """A self-test.

    Attributes:
        failures: how many comparisons did not hold; None where the graph could not be run.
        cosine: the least of an output's to torch's; None where there was no output.
        problem: the first thing that was wrong; "" where nothing was.
    """

    failures: int | None
    cosine: float | None
    problem: str

    @property
    def passed(self) -> bool:
        """Whether everything held."""
        return self.failures == 0

    def __str__(self) -> str:
        if self.failures is None:
            return f"does not run ({self.problem})"
        cosine = "" if self.cosine is None else f", cosine {self.cosine:.5f}"
        return ("right" if self.passed else f"wrong in {self.failures}") + cosine


@dataclass(frozen=True)
class Row:
    """A variant on an engine."""

    bundle: str
    variant: str
    min_engine: str | None
    verdict: Verdict
    outcomes: dict[Kernels, Outcome]


def judge(bundle: Path, module: str) -> Iterator[Row]:
    """Every TFLite variant of a bundle on one engine.

    Args:
        bundle: its folder.
        module: what the engine is imported from, as "tensorflow".
    """
    variants = Bundle.open(bundle).manifest.variants
    names = sorted(name for name, spec in variants.items() if spec.engine is Engine.TFLITE)
    found = {kernels: _run_apart(bundle, names, module, kernels) for kernels in Kernels}
    for name in names:
        least = variants[name].min_engine
        outcomes = {kernels: found[kernels][name] for kernels in Kernels}
        if least is not None and not versions.satisfies(module, least):
            verdict = Verdict.REFUSED
        else:
            passed = all(outcome.passed for outcome in outcomes.values())
            verdict = Verdict.PASSED if passed else Verdict.WRONG
        yield Row(bundle.name, name, least, verdict, outcomes)


def run(bundle: Path, variant: str, module: str, kernels: Kernels) -> Outcome:
    """The golden self-test of a variant, by an engine that is not asked whether it is new enough.

    It changes this process's runtime: no version is too old for it then.
    """
    versions._LEAST.update({precision: {} for precision in Precision})
    backends._IMPORTS[Engine.TFLITE] = (module,)
    versions.distribution = lambda module: (module, "")  # one of unknown version is trusted
    _take(module, kernels)
    opened = Bundle.open(bundle)
    try:
        failures = selftest.selftest(opened, [variant], threads=1).failures
        cosine = _least_cosine(opened, variant)
    except PocketVLError as error:
        return Outcome(None, None, str(error))
    return Outcome(len(failures), cosine, failures[0] if failures else "")


def _take(module: str, kernels: Kernels) -> None:
    """Makes the runtime open graphs with these kernels alone."""
    wrapper: Any = import_module(litert._INTERPRETERS[module][0])
    if kernels is Kernels.BUILTIN and not isinstance(wrapper.Interpreter, partial):
        resolver = wrapper.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        wrapper.Interpreter = partial(wrapper.Interpreter, experimental_op_resolver_type=resolver)


def _least_cosine(bundle: Bundle, variant: str) -> float | None:
    golden = bundle.golden()
    made, _ = selftest._processors(bundle, golden)
    found = selftest._Variant(load(bundle, variant, 1), golden, made)
    least = None
    for port, arrays in golden.outputs.items():
        for array in arrays:
            got = found._output(port, array.inputs).astype(np.float64).ravel()
            expected = np.asarray(array.values)
            cosine = float(got @ expected / (np.linalg.norm(got) * np.linalg.norm(expected)))
            least = cosine if least is None or not cosine >= least else least
    return least


def _run_apart(bundle: Path, variants: Sequence[str], module: str, kernels: Kernels) -> dict[str, Outcome]:
    """By variant, `run` in a process of its own: an engine may crash on what it does not know."""
    found: dict[str, Outcome] = {}
    while len(found) < len(variants):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            for name in variants[len(found) :]:
                try:
                    found[name] = pool.submit(run, bundle, name, module, kernels).result()
                except BrokenProcessPool:
                    found[name] = Outcome(None, None, "the engine crashed")
                    break
    return found


def table(rows: Sequence[Row]) -> str:
    """Rows for people, in Markdown."""
    lines = [
        "| bundle | variant | min_engine | verdict | XNNPACK | own kernels |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [row.bundle, row.variant, row.min_engine or "any", row.verdict]
        lines.append(f"| {' | '.join([*cells, *map(str, row.outcomes.values())])} |")
    return "\n".join(lines)


def main(words: Sequence[str]) -> int:
    """The command; 0 where every variant passed or was refused, and there was one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--engine", required=True, choices=sorted(litert._INTERPRETERS))
    parser.add_argument("bundles", nargs="+", type=Path)
    given = parser.parse_args(words)
    rows = [row for bundle in given.bundles for row in judge(bundle, given.engine)]
    click.echo(f"{versions.described(given.engine)}:\n\n{table(rows)}")
    for row in rows:
        if row.verdict is Verdict.WRONG:
            problem = next(outcome.problem for outcome in row.outcomes.values() if not outcome.passed)
            click.echo(f"{row.bundle}: {row.variant}: {problem}", err=True)
    if not rows:
        click.echo("none of the bundles holds a TFLite variant", err=True)
    return int(not rows or any(row.verdict is Verdict.WRONG for row in rows))


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")  # of the processes that it starts
    sys.exit(main(sys.argv[1:]))
