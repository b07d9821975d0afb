"""docs/DEVICES.md, out of the profiles in docs/devices/; no figure comes from anywhere else."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from pocketvl.errors import DataError
from pocketvl_runtime.bench_result import TOTAL, BenchResult, Timing, VariantBench

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "devices"
PAGE = ROOT / "docs" / "DEVICES.md"

_HEAD = """\
# Latency on devices

Profiles that were measured with `pocketvl profile`, one file each in [devices/](devices/README.md), whose
README says how to send yours. `make devices` writes this page from them. Milliseconds of one whole answer,
from the picture's bytes to the ranked result, at the thread count with the lowest median. Cold start and peak
memory are of a process that runs the variant alone, at the first thread count of the profile.
"""


def read_devices(folder: Path) -> dict[str, BenchResult]:
    """The profiles of a folder, by the names of their files.

    Raises:
        BundleError: a file is no profile.
        DataError: one was measured under emulation, or there is none.
    """
    results = {
        path.name: BenchResult.from_json(path.read_bytes(), path.name)
        for path in sorted(folder.glob("*.json"))
    }
    for name, result in results.items():
        if result.machine.emulated:
            raise DataError(f"{name} was measured under emulation: its figures are no device's; remove it")
    if not results:
        raise DataError(f"{folder} holds no profile")
    return results


def render_devices(results: Mapping[str, BenchResult]) -> str:
    """The page.

    Args:
        results: by the names of their files.
    """
    lines = [_HEAD]
    for model in sorted({result.bundle.name for result in results.values()}):
        lines.append(f"## {_cell(model)}\n")
        for name, result in results.items():
            if result.bundle.name == model:
                lines += [*_device(name, result), ""]
    return "\n".join(lines)


def _device(name: str, result: BenchResult) -> Iterator[str]:
    machine, conditions = result.machine, result.conditions
    yield f"### {_cell(machine.device or machine.cpu)}\n"
    about = [
        machine.cpu,
        machine.isa,
        f"{machine.usable_processors} of {machine.processors} processors",
        *machine.governors,
        *([f"up to {machine.mhz_max:.0f} MHz"] if machine.mhz_max else []),
        machine.os,
        f"{result.settings.runs} runs",
    ]
    yield f"{', '.join(map(_cell, about))}; [{name}](devices/{name})\n"
    yield "| variant | threads | p10 | median | p90 | cold start | peak MB | engine |"
    yield "|---|---:|---:|---:|---:|---:|---:|---|"
    for variant, measured in result.variants.items():
        timing = measured.quickest()
        yield f"| {' | '.join((_cell(variant), *_figures(measured, timing)))} |"
    doubts = [] if conditions is None else [*conditions.warnings]
    if conditions is not None and conditions.throttled:
        doubts.append("throttled")
    if doubts:
        yield f"\nDoubtful: {'; '.join(map(_cell, doubts))}."


def _figures(measured: VariantBench, timing: Timing) -> Iterator[str]:
    total, peak = timing.stages[TOTAL], measured.peak_memory_bytes
    yield str(timing.threads)
    yield from (f"{value:.2f}" for value in (total.p10, total.median, total.p90))
    yield next(
        (f"{each.cold_start_ms:.0f}" for each in measured.timings if each.cold_start_ms is not None), ""
    )
    yield "" if peak is None else f"{peak / 1e6:.0f}"
    yield _cell(f"{measured.engine.name} {measured.engine.version}")


def _cell(text: str) -> str:
    """A text of somebody else's file, so that it is nothing but text in Markdown."""
    plain = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return re.sub(r"([\\`*_\[\]|<>#!~])", r"\\\1", plain)


def main() -> None:
    """Write the page."""
    PAGE.write_text(render_devices(read_devices(FOLDER)), encoding="utf-8", newline="\n")
    print(PAGE.relative_to(ROOT))


if __name__ == "__main__":
    main()
