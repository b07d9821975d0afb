"""The page of models of published sizes, from what is recorded."""

from __future__ import annotations

from pathlib import Path

from bench.peers.render import prose
from bench.real_sizes.measuring import RECORD_FILE, RealRecord, VariantRecord
from bench.real_sizes.models import MODELS
from bench.results.record import read_record
from pocketvl.errors import DataError

_NO = "–"


def write_page(work: Path, out: Path) -> None:
    """Write the page.

    Args:
        work: of the measurements.
        out: the page.

    Raises:
        DataError: nothing is recorded.
    """
    records = [found for name in MODELS if (found := read_record(RealRecord, work / name / RECORD_FILE))]
    if not records:
        raise DataError(f"nothing is recorded in {work}: run measure first")
    parts = [_head(records), _exports(records), *map(_section, records)]
    out.write_text("\n".join(parts), encoding="utf-8", newline="\n")


def _head(records: list[RealRecord]) -> str:
    missing = [name for name in MODELS if name not in {each.name for each in records}]
    left = f" Not measured: {', '.join(missing)}." if missing else ""
    machines = " and ".join(dict.fromkeys(each.machine for each in records))
    how = f"""Each model is exported whole, from an empty cache: its published configuration, random
        weights with biases that are not 0, and in every LayerNorm of its layers one channel eight
        times as large as the others (in a FastViT: batch norms of which the channels differ
        widely). Some samples calibrate, others judge; what is judged is how near a variant's
        outputs are to torch's (limits: a median mean-centred cosine of .99 in int8, but .95 where
        fewer than 100 inputs differ, as captions here do; .999 in fp16), since random weights give
        no answers; int4, which is judged by answers alone, passes whatever its cosine. Layers go to
        a higher precision (fallback) until a variant passes. `make real-sizes` measures this page
        again.{left}"""
    where = f"""Machine: {machines}. Times are of one export each; "other load" is how many processors other
        programs kept busy meanwhile: a time with much of it is too long. Memory is the largest of
        all processes of the export together (proportional set size)."""
    return "\n".join(["# Models of published sizes\n", prose(how), prose(where)])


def _exports(records: list[RealRecord]) -> str:
    rows = [
        "| model | weights | variants | samples | export | other load | memory | in fallback at most |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in records:
        passed = sum(variant.passed for variant in each.variants.values())
        share = max(variant.fallback_share for variant in each.variants.values())
        rows.append(
            f"| {each.name} (`{each.published}`) | {each.parameters / 1e6:,.0f} M | {passed} of "
            f"{len(each.variants)} pass | {each.calibrated} + {each.judged} | {each.seconds / 60:.1f} min | "
            f"{each.other_load:.1f} | {each.peak_bytes / 1e9:.1f} GB | {share:.1%} |"
        )
    return "\n".join(rows) + "\n"


def _section(record: RealRecord) -> str:
    ports = list(dict.fromkeys(port for each in record.variants.values() for port in each.cosines))
    rows = [
        f"## {record.name}\n",
        f"| | MB | {' | '.join(ports)} | passed | in fallback |",
        "|---|---|" + "---|" * len(ports) + "---|---|",
    ]
    for name, each in record.variants.items():
        cosines = " | ".join(_cosine(each, port) for port in ports)
        share = f"{each.fallback_share:.1%}" if each.fallback_share else _NO
        passed = "yes" if each.passed else "**no**"
        rows.append(f"| {name} | {each.size_bytes / 1e6:,.1f} | {cosines} | {passed} | {share} |")
    moved = [
        prose(f"In fallback, {name}: {'; '.join(each.fallback)}.")
        for name, each in record.variants.items()
        if each.fallback and name.startswith("onnx")
    ]
    return "\n".join(rows) + "\n" + "".join(f"\n{line}" for line in moved)


def _cosine(variant: VariantRecord, port: str) -> str:
    found = variant.cosines.get(port)
    return _NO if found is None else f"{found:.5f}".lstrip("0")
