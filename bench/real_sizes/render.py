"""The page of models of published sizes, from what is recorded."""

from __future__ import annotations

from pathlib import Path

from bench.pages import fill_place, prose
from bench.real_sizes.measuring import RECORD_FILE, RealRecord, VariantRecord, variants_of
from bench.real_sizes.models import MODELS
from bench.results.record import read_record
from pocketvl.errors import DataError

_NO = "–"


def write_page(work: Path, out: Path, families: Path) -> None:
    """Write the page, and its summary into the page of families.

    Args:
        work: of the measurements.
        out: the page.
        families: where the summary goes, between `<!-- real sizes -->` and `<!-- /real sizes -->`.

    Raises:
        DataError: nothing is recorded.
    """
    records = [found for name in MODELS if (found := read_record(RealRecord, work / name / RECORD_FILE))]
    if not records:
        raise DataError(f"nothing is recorded in {work}: run measure first")
    parts = [_head(records), _exports(records), *map(_section, records)]
    out.write_text("\n".join(parts), encoding="utf-8", newline="\n")
    fill_place(families, "real sizes", _summary(records))


def _head(records: list[RealRecord]) -> str:
    missing = [name for name in MODELS if name not in {each.name for each in records}]
    left = f" Not measured: {', '.join(missing)}." if missing else ""
    machines = " and ".join(dict.fromkeys(each.machine.rpartition(", ")[0] for each in records))
    how = f"""Each model is exported whole, from an empty cache: its published configuration, random
        weights with biases that are not 0, and in every LayerNorm of its layers one channel eight
        times as large as the others (in a FastViT: batch norms of which the channels differ
        widely). Some samples calibrate, others judge; what is judged is how near a variant's
        outputs are to torch's (limits: a median mean-centred cosine of .99 in int8, .999 in fp16),
        since random weights give no answers; int4, which is judged by answers alone, passes whatever
        its cosine. Layers go to a higher precision (fallback) until a variant passes: to dynamic int8,
        which keeps their 8 bits, or to float. `make real-sizes` measures this page again.{left}"""
    where = f"""Machine: {machines}. Times are of one export each. "Other load" is how many processors other
        programs kept busy meanwhile, those that the export was not allowed among them. Memory is the
        largest of all processes of the export together (proportional set size).{_not_all(records)}"""
    return "\n".join(["# Models of published sizes\n", prose(how), prose(where)])


def _not_all(records: list[RealRecord]) -> str:
    """Which variants a model has not, where it is not all of them."""
    told = ""
    for each in records:
        model = MODELS[each.name]
        lacking = [name for name in variants_of(model) if name not in each.variants]
        if lacking:
            told += f" {each.name} has no {', '.join(lacking)}."
        if not model.fits_tflite:
            told += (
                f" Of {each.name} there is ONNX alone: a TFLite file has no room for a component over 2 GiB."
            )
    return told


def _summary(records: list[RealRecord]) -> str:
    """A row a model: what an export takes, what comes of it, and what int8 and int4 cost at most."""
    rows = [
        "| model | weights | export | memory | MB fp32 | int8 | int4 | cosine int8 | int4 | in fallback |",
        "|---" * 10 + "|",
    ]
    for each in records:
        sizes = [_largest(each, precision) for precision in ("fp32", "int8", "int4")]
        cosines = [_worst(each, precision) for precision in ("int8", "int4")]
        cells = [
            each.name,
            f"{each.parameters / 1e6:,.0f} M",
            f"{each.seconds / 60:.0f} min",
            f"{each.peak_bytes / 1e9:.1f} GB",
            *(f"{size / 1e6:,.0f}" for size in sizes),
            *(f"{cosine:.4f}".lstrip("0") for cosine in cosines),
            _in_fallback(_most_in_fallback(each)),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _most_in_fallback(record: RealRecord) -> VariantRecord:
    """The variant that moved most of the weights to a higher precision."""
    return max(record.variants.values(), key=lambda each: each.fallback_share)


def _in_fallback(variant: VariantRecord) -> str:
    """Of all weights, those that it moved to a higher precision, and of all weights those in float."""
    if not variant.fallback_share:
        return _NO
    return f"{variant.fallback_share:.1%} ({variant.float_share:.1%} in float)"


def _of_precision(record: RealRecord, precision: str) -> list[VariantRecord]:
    return [each for name, each in record.variants.items() if name.split("-")[1] == precision]


def _largest(record: RealRecord, precision: str) -> int:
    """Bytes of the larger engine's variant."""
    return max(each.size_bytes for each in _of_precision(record, precision))


def _worst(record: RealRecord, precision: str) -> float:
    """The least of all outputs' and both engines' cosines."""
    return min(cosine for each in _of_precision(record, precision) for cosine in each.cosines.values())


def _exports(records: list[RealRecord]) -> str:
    rows = [
        "| model | weights | variants | samples | export | on | other load | memory | in fallback at most |",
        "|---" * 9 + "|",
    ]
    for each in records:
        passed = sum(variant.passed for variant in each.variants.values())
        rows.append(
            f"| {each.name} (`{each.published}`) | {each.parameters / 1e6:,.0f} M | {passed} of "
            f"{len(each.variants)} pass | {each.calibrated} + {each.judged} | {each.seconds / 60:.1f} min | "
            f"{_processors(each)} | {each.other_load:.1f} | {each.peak_bytes / 1e9:.1f} GB | "
            f"{_in_fallback(_most_in_fallback(each))} |"
        )
    return "\n".join(rows) + "\n"


def _processors(record: RealRecord) -> str:
    """How many the export was allowed, the last that is said of its machine."""
    return record.machine.rpartition(", ")[2]


def _section(record: RealRecord) -> str:
    ports = list(dict.fromkeys(port for each in record.variants.values() for port in each.cosines))
    rows = [
        f"## {record.name}\n",
        f"| | MB | {' | '.join(ports)} | passed | in fallback |",
        "|---|---|" + "---|" * len(ports) + "---|---|",
    ]
    for name, each in record.variants.items():
        cosines = " | ".join(_cosine(each, port) for port in ports)
        passed = "yes" if each.passed else "**no**"
        moved = _in_fallback(each)
        rows.append(f"| {name} | {each.size_bytes / 1e6:,.1f} | {cosines} | {passed} | {moved} |")
    lists = [
        prose(f"In fallback, {name}: {'; '.join(each.fallback)}.")
        for name, each in record.variants.items()
        if each.fallback and name.startswith("onnx")
    ]
    return "\n".join(rows) + "\n" + "".join(f"\n{line}" for line in lists)


def _cosine(variant: VariantRecord, port: str) -> str:
    found = variant.cosines.get(port)
    return _NO if found is None else f"{found:.5f}".lstrip("0")
