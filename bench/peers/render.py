"""The page of a comparison, its picture, and the README's line, from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bench.pages import fill_place, prose
from bench.peers.contenders import METHODS, OWN, PEERS, TOWERS, Method
from bench.peers.figures import LEAST_COSINE, Verdict, paired_ratio, verdict
from bench.peers.load import LEAST_ROUNDS, LIMIT
from bench.peers.picture import Panel, Point, draw, kind_of
from bench.peers.record import (
    EXPORT_FILE,
    MODEL_FILE,
    QUANTIZE_FILE,
    ExportRecord,
    Made,
    ModelRecord,
    QuantizeRecord,
    Timed,
    made_file,
    timed_file,
)
from bench.results.record import read_record
from pocketvl.errors import DataError

THREADS = (1, 2)
MOST = {"tflite": 1.0, "onnx": 1.1}
"""Of the fastest peer's time that the better variant of an engine may take."""
_NO = "–"


@dataclass(frozen=True)
class Tower:
    """What was measured of one tower.

    Attributes:
        model: whose.
        name: "image" or "text".
        made: by method.
        timed: by threads.
    """

    model: ModelRecord
    name: str
    made: dict[str, Made]
    timed: dict[int, Timed]

    def verdict(self, engine: str, threads: int) -> Verdict | None:
        """The variants of one engine beside the fastest peer."""
        timed = self.timed.get(threads)
        if timed is None:
            return None
        own = [
            each.name
            for each in METHODS
            if each.is_own and each.name.startswith(engine) and kind_of(each.name) != "fp32"
        ]
        peers = [each.name for each in METHODS if not each.is_own]
        cosines = {name: made.fidelity.median for name, made in self.made.items() if made.fidelity}
        return verdict(own, peers, timed.rounds_ms, cosines)


def write_page(
    work: Path, models: Sequence[str], out: Path, readme: Path, *, without_amx: bool = False
) -> None:
    """Write the page, a picture beside it, and the line in the README.

    Args:
        work: the comparison's folder.
        models: which, in this order; those without times are left out.
        out: the page.
        readme: where the line goes, between `<!-- peers -->` and `<!-- /peers -->`; left alone where it
            has no such place, and where the machine was in use.
        without_amx: take the times that were measured without AMX.

    Raises:
        DataError: nothing was timed.
    """
    towers = [
        tower for model in models for name in TOWERS if (tower := _read(work, model, name, without_amx)).timed
    ]
    if not towers:
        raise DataError(f"nothing is timed in {work}: run measure first")
    picture = out.with_name(f"{out.stem.lower()}.png")
    draw([_panel(tower) for tower in towers], THREADS[-1], picture)
    parts = [_head(towers), f"![latency against fidelity, a panel a tower]({picture.name})\n", _goals(towers)]
    parts += [_section(tower) for tower in towers]
    parts += [_exports(work, dict.fromkeys(tower.model.name for tower in towers)), _settings(towers)]
    out.write_text("\n".join(parts), encoding="utf-8", newline="\n")
    if readme.exists() and not any(_in_use(timed) for tower in towers for timed in tower.timed.values()):
        fill_place(readme, "peers", prose(readme_line(towers, out)))


def _read(work: Path, model: str, tower: str, without_amx: bool) -> Tower:
    record = read_record(ModelRecord, work / model / MODEL_FILE)
    if record is None:
        raise DataError(f"{model} is not prepared in {work}: run prepare first")
    made = {
        each.name: found
        for each in METHODS
        if (found := read_record(Made, made_file(work, model, each.name, tower))) is not None
    }
    timed = {
        threads: times
        for threads in THREADS
        if (times := read_record(Timed, timed_file(work, model, tower, threads, without_amx=without_amx)))
        is not None
    }
    return Tower(record, tower, made, timed)


def _in_use(timed: Timed) -> bool:
    return timed.any_load or timed.doubtful


def _head(towers: Sequence[Tower]) -> str:
    times = [timed for tower in towers for timed in tower.timed.values()]
    machines = " and ".join(dict.fromkeys(timed.machine for timed in times))
    rounds = [len(timed.busy_during) for timed in times]
    dropped = sum(len(timed.busy_during) - timed.kept for timed in times)
    mean = float(np.mean([busy for timed in times for busy in timed.busy_during]))
    idle = max(timed.busy_workers for timed in times)
    before = max(timed.busy_before for timed in times)
    doubts = ""
    if any(map(_in_use, times)):
        doubts = "**The machine was in use while this was measured: these are no latencies to rely on.**\n"
    model = towers[0].model
    return "\n".join(
        [
            "# Beside its peers\n",
            prose(
                """pocketvl's variants and what other tools make of the same towers, in one run: every graph
                is served by a process of its own, and in each round every process is asked once, in an order
                that changes. `make bench-peers` measures this page again."""
            ),
            prose(
                f"""Machine: {machines}. {_range(rounds)} rounds of {times[0].runs} runs each, after one that
                does not count. Other programs kept at most {before:.2f} processors busy before, and
                {mean:.2f} during rounds on average; a round with more than {LIMIT} does not count
                ({dropped} of {sum(rounds)}), unless fewer than {LEAST_ROUNDS} were left. Workers that waited
                for their turn kept at most {idle:.2f} processors busy, all together."""
            ),
            *([doubts] if doubts else []),
            prose(
                f"""Calibration: {model.samples} pictures ({model.pictures}) and texts. Fidelity: the median
                of centred cosines of {model.samples} other pictures and texts to torch in fp32, the mean of
                torch's taken off both (95 % interval of the bootstrap). Where pictures are photographs,
                calibration sees a mirrored part of each."""
            ),
        ]
    )


def _range(values: Sequence[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else f"{min(values)} to {max(values)}"


def _goals(towers: Sequence[Tower]) -> str:
    head = [
        "## The fastest peer\n",
        prose(
            f"""Of each engine's int8 and int4 variants the fastest with no less fidelity than the fastest
            peer; of peers those with a centred cosine of {LEAST_COSINE} or more. Ratios are medians over
            rounds, of times in the same round. TFLite may take {MOST["tflite"]} of the peer's time, ONNX
            {MOST["onnx"]}."""
        ),
        "| tower | threads | engine | variant | fastest peer | ratio | centred cosines | within |",
        "|---" * 8 + "|",
    ]
    rows = [
        _goal_row(tower, threads, engine)
        for tower in towers
        for threads in THREADS
        for engine in MOST
        if tower.verdict(engine, threads) is not None
    ]
    return "\n".join([*head, *rows]) + "\n"


def _goal_row(tower: Tower, threads: int, engine: str) -> str:
    found = tower.verdict(engine, threads)
    assert found is not None
    title = f"{tower.model.name} {tower.name}"
    if found.own is None or found.ratio is None or found.fidelity is None:
        return f"| {title} | {threads} | {engine} | none as faithful | {found.peer} | {_NO} | {_NO} | no |"
    within = "yes" if round(found.ratio, 3) <= MOST[engine] else "no"
    cosines = " / ".join(f"{value:.4f}" for value in found.fidelity)
    return (
        f"| {title} | {threads} | {engine} | {found.own} | {found.peer} | {found.ratio:.2f} | {cosines} "
        f"| {within} |"
    )


def _section(tower: Tower) -> str:
    columns = ["method", "MB", "centred cosine"]
    for threads in sorted(tower.timed):
        columns += [f"ms, {threads} thread{'s' * (threads > 1)} (p10)", "of the fastest peer"]
    columns += ["least cosine", "quantizing", "peak memory", "memory as it runs"]
    head = f"## {tower.model.name}: {tower.name}\n\n{prose(tower.model.described + '.')}"
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += [_row(tower, method) for method in METHODS if method.name in tower.made]
    return "\n".join([head, *lines]) + "\n"


def _row(tower: Tower, method: Method) -> str:
    made = tower.made[method.name]
    name = f"**{method.name}**" if method.is_own else method.name
    served = [
        timed.serving_bytes[method.name]
        for timed in tower.timed.values()
        if method.name in timed.serving_bytes
    ]
    cells = [
        name,
        f"{made.size_bytes / 1e6:.1f}" if made.size_bytes else _NO,
        f"{made.fidelity.median:.4f} ({made.fidelity.low:.4f} to {made.fidelity.high:.4f})"
        if made.fidelity
        else "fails, see below",
    ]
    for threads in sorted(tower.timed):
        cells += _timed_cells(tower, method.name, threads)
    cells += [
        f"{made.fidelity.least:.4f}" if made.fidelity else _NO,
        f"{made.seconds:.0f} s" if made.seconds is not None else _NO,
        f"{made.peak_bytes / 1e9:.1f} GB" if made.peak_bytes else _NO,
        f"{max(served) / 1e6:.0f} MB" if served else _NO,
    ]
    return "| " + " | ".join(cells) + " |"


def _timed_cells(tower: Tower, method: str, threads: int) -> list[str]:
    timed = tower.timed[threads]
    if method not in timed.rounds_ms:
        return [_NO, _NO]
    found = tower.verdict("tflite", threads) or tower.verdict("onnx", threads)
    ratio = _NO
    if found is not None:
        ratio = f"{paired_ratio(timed.rounds_ms[method], timed.rounds_ms[found.peer]):.2f}"
    return [f"{float(np.median(timed.rounds_ms[method])):.1f} ({timed.p10_ms[method]:.1f})", ratio]


def _exports(work: Path, models: Mapping[str, None]) -> str:
    lines = [
        "## Time to quantize\n",
        prose(
            """Both towers. pocketvl's static int8 by itself (folding, calibration, equalization, GPTQ; here
            torch's import counts), and its whole export: seven variants, lowered, written, run on all
            samples, compared, timed and reported. Memory is the largest of all processes together."""
        ),
        "| model | tool | quantizing | whole export | peak memory |",
        "|---" * 5 + "|",
    ]
    for model in models:
        alone = read_record(QuantizeRecord, work / model / QUANTIZE_FILE)
        if alone is not None:
            peak = f"{alone.peak_bytes / 1e9:.1f} GB"
            lines.append(f"| {model} | **pocketvl, static int8** | {alone.seconds:.0f} s | {_NO} | {peak} |")
        export = read_record(ExportRecord, work / model / EXPORT_FILE)
        if export is not None:
            note = " (part of it was cached)" if export.cached else ""
            peak = f"{export.peak_bytes / 1e9:.1f} GB"
            lines.append(f"| {model} | **pocketvl export** | {_NO} | {export.seconds:.0f} s{note} | {peak} |")
        for method in METHODS:
            made = [read_record(Made, made_file(work, model, method.name, tower)) for tower in TOWERS]
            seconds = [each.seconds for each in made if each is not None and each.seconds is not None]
            peaks = [each.peak_bytes or 0 for each in made if each is not None]
            if len(seconds) == len(TOWERS):
                lines.append(
                    f"| {model} | {method.name} | {sum(seconds):.0f} s | {_NO} | {max(peaks) / 1e9:.1f} GB |"
                )
    return "\n".join(lines) + "\n"


def _settings(towers: Sequence[Tower]) -> str:
    lines = ["## What each was told\n", "| method | tool | settings |", "|---" * 3 + "|"]
    for method in METHODS:
        shown = OWN if method.is_own else PEERS[method.peer].shown
        versions = next(
            (
                t.made[method.name].versions
                for t in towers
                if method.name in t.made and t.made[method.name].versions
            ),
            "",
        )
        lines.append(f"| {method.name} | {versions or shown} | {method.told} |")
    failures = [
        f"- {tower.model.name} {tower.name}, {name}: `{words}`"
        for tower in towers
        for name, words in _failures(tower).items()
    ]
    if failures:
        lines += ["", "What failed, in its own words:\n", *failures]
    vocabulary = ", ".join(
        f"{model.name} {model.vocabulary:,}" for model in {t.model.name: t.model for t in towers}.values()
    )
    return (
        "\n".join(lines)
        + "\n\n"
        + prose(
            f"""Everybody starts from the same modules in fp32, which take pixels as uint8 and ids as int32,
            with normalisation inside: peers from what torch.onnx, litert-torch and torch.export write of
            them, without anything that pocketvl does to a tower before quantizing it. Threads are set by each
            engine's own option; no process is pinned to a processor, and ONNX Runtime's threads do not spin
            between two requests. Tokens of the text towers: {vocabulary}."""
        )
    )


def _failures(tower: Tower) -> dict[str, str]:
    found = {name: made.failed for name, made in tower.made.items() if made.failed}
    return found | {name: words for timed in tower.timed.values() for name, words in timed.failed.items()}


def _panel(tower: Tower) -> Panel:
    timed = tower.timed[max(tower.timed)]
    points = tuple(
        Point(
            method.peer,
            kind_of(method.name),
            float(np.median(timed.rounds_ms[method.name])),
            made.fidelity.median,
        )
        for method in METHODS
        if method.name in timed.rounds_ms
        and (made := tower.made.get(method.name)) is not None
        and made.fidelity is not None
    )
    return Panel(f"{tower.model.name}, {tower.name}", points)


def readme_line(towers: Sequence[Tower], page: Path) -> str:
    """The comparison in a sentence, with a link to the page."""
    told = []
    for engine in MOST:
        found = [
            each for tower in towers for threads in tower.timed if (each := tower.verdict(engine, threads))
        ]
        ratios = [each.ratio for each in found if each.ratio is not None]
        if ratios:
            most = max(ratios)
            span = f"{min(ratios):.2f}" if min(ratios) == most else f"{min(ratios):.2f} to {most:.2f}"
            missing = len(found) - len(ratios)
            none = f" ({missing} times no variant was as faithful)" if missing else ""
            told.append(
                f"the better {engine.replace('tflite', 'TFLite').replace('onnx', 'ONNX')} variant takes "
                f"{span} of the fastest peer's time{none}"
            )
    models = " and ".join(dict.fromkeys(tower.model.name for tower in towers))
    machine = next(iter(towers[0].timed.values())).machine
    return (
        "Beside OpenVINO + NNCF, litert-quantizer, ONNX Runtime's own tools and ExecuTorch, "
        f"{' and '.join(told)}, at no less fidelity ({models}, image and text, 1 and 2 threads, {machine}): "
        f"[docs/{page.name}](docs/{page.name})."
    )
