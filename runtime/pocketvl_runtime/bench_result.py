"""What a bench measured, as one versioned JSON that other tools write too; docs/BENCH.md describes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal

from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.format_versions import FormatVersion
from pocketvl_runtime.json_schema import check_keywords, schema_text
from pocketvl_runtime.op_result import GraphOps, Peak
from pocketvl_runtime.schema import OPTIONAL, decode, dump_json, parse_json

FORMAT: Final = "pocketvl-bench"
FORMAT_VERSION = FormatVersion(1, 2, "measure again with `pocketvl-run bench`")
TOTAL = "total"
"""The stage that every timing has: a whole answer."""
_BEFORE, _AFTER = ("decode", "preprocess", "tokens"), ("post", TOTAL)
COMMON_STAGES = (*_BEFORE, *_AFTER)
"""The stages that are no component's."""

_SHA256 = {"schema": {"pattern": "^[0-9a-f]{64}$"}}
_VERSION = {"schema": {"pattern": rf"^{FORMAT_VERSION.major}\.(0|[1-9][0-9]{{0,5}})$"}}
_AT_LEAST_0: Mapping[str, Any] = {"schema": {"minimum": 0}}
_AT_LEAST_1: Mapping[str, Any] = {"schema": {"minimum": 1}}
_NOT_EMPTY: Mapping[str, Any] = {"schema": {"minLength": 1}}
_SOME: Mapping[str, Any] = {"schema": {"minItems": 1}}
_OPTIONAL_AT_LEAST_0: Mapping[str, Any] = {**_AT_LEAST_0, **OPTIONAL}
_OPTIONAL_AT_LEAST_1: Mapping[str, Any] = {**_AT_LEAST_1, **OPTIONAL}


class Inputs(StrEnum):
    """What was asked: the golden pack's first inputs, or some that the user gave, at least one of them.

    PREPARED: the golden ones as pixels and ids that were made beforehand, so that stages hold neither
    decoding nor preprocessing nor a tokenizer.
    """

    GOLDEN = "golden"
    GIVEN = "given"
    PREPARED = "prepared"


@dataclass(frozen=True)
class Software:
    """A program or library.

    Attributes:
        name: as its package is called, e.g. "onnxruntime".
        version: its version, e.g. "1.32.0".
    """

    name: str = field(metadata=_NOT_EMPTY)
    version: str

    def __post_init__(self) -> None:
        check_keywords(self)


@dataclass(frozen=True)
class Machine:
    """Where it was measured; the figures say nothing about any other machine.

    Attributes:
        device: model of the device, e.g. "Raspberry Pi 5 Model B Rev 1.0"; null: not known.
        cpu: name of the processor.
        architecture: as the system calls it, e.g. "aarch64", "x86_64".
        isa: instruction set that decides how fast int8 is: "avx2", "avx512_vnni", "neon+dotprod", ...
        exact_int8: whether the processor keeps sums of 8-bit products in 32 bits.
        processors: logical processors of the machine.
        usable_processors: how many of them the process could use at once.
        memory_bytes: of the machine; null: not known.
        os: operating system and its version, e.g. "Linux 6.8.0", "Android 15".
        governors: frequency governors of the processors, each named once, sorted; empty: not known.
        emulated: whether the processor is emulated (qemu-user), so that no latency is that of the device; may
            be missing: not known.
        mhz_max: highest frequency that a processor may take, in MHz; may be missing: not known.
    """

    device: str | None
    cpu: str
    architecture: str
    isa: str
    exact_int8: bool
    processors: int = field(metadata=_AT_LEAST_1)
    usable_processors: int = field(metadata=_AT_LEAST_1)
    memory_bytes: int | None = field(metadata=_AT_LEAST_1)
    os: str
    governors: tuple[str, ...]
    emulated: bool | None = field(default=None, metadata=OPTIONAL)
    mhz_max: float | None = field(default=None, metadata=_OPTIONAL_AT_LEAST_0)

    def __post_init__(self) -> None:
        check_keywords(self)


@dataclass(frozen=True)
class BundleIdentity:
    """Which bundle was measured.

    Attributes:
        name: of its model, as the manifest has it.
        manifest_file_sha256: SHA-256 of the bytes of its manifest.json, 64 lower-case hex digits.
    """

    name: str
    manifest_file_sha256: str = field(metadata=_SHA256)

    def __post_init__(self) -> None:
        check_keywords(self)


@dataclass(frozen=True)
class Settings:
    """How it was measured.

    Attributes:
        runs: counted runs of every variant at every thread count.
        warmup_runs: runs of each before those, which are not counted.
        interleaved: whether each round runs everything once, rather than one variant after the other.
        seed: of the order within rounds; null: the order is fixed.
        inputs: what was asked.
    """

    runs: int = field(metadata=_AT_LEAST_1)
    warmup_runs: int = field(metadata=_AT_LEAST_0)
    interleaved: bool
    seed: int | None
    inputs: Inputs

    def __post_init__(self) -> None:
        check_keywords(self)


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one stage over the counted runs; percentiles interpolate linearly.

    Attributes:
        p10: tenth percentile.
        median: fiftieth percentile.
        p90: ninetieth percentile.
        max: the longest run.
        n: how many runs were counted.
        p99: ninety-ninth percentile; may be missing.
        samples: every counted run, in the order in which they ran; may be missing.
    """

    p10: float = field(metadata=_AT_LEAST_0)
    median: float = field(metadata=_AT_LEAST_0)
    p90: float = field(metadata=_AT_LEAST_0)
    max: float = field(metadata=_AT_LEAST_0)
    n: int = field(metadata=_AT_LEAST_1)
    p99: float | None = field(default=None, metadata=_OPTIONAL_AT_LEAST_0)
    samples: tuple[float, ...] | None = field(default=None, metadata=OPTIONAL)

    def __post_init__(self) -> None:
        check_keywords(self)
        if not self.p10 <= self.median <= self.p90 <= self.max:
            raise BundleError("of p10, median, p90 and max, none may be below the one before")
        if self.p99 is not None and not self.p90 <= self.p99 <= self.max:
            raise BundleError("p99 must lie between p90 and max")
        if self.samples is not None and len(self.samples) != self.n:
            raise BundleError(f"samples has {len(self.samples)} items where n is {self.n}")


@dataclass(frozen=True)
class Timing:
    """One variant at one thread count.

    Attributes:
        threads: of an inference.
        load_ms: from the opened bundle to the first question being possible.
        stages: latency by stage. "total" is there always, and holds all others: for a match of one picture
            with one text these are "decode", "preprocess", "tokens", "image", "text" and "post".
        busy_threads: CPU time of the process in the counted runs, divided by their duration; may be missing.
        first_ms: the first answer after loading; may be missing.
        cold_start_ms: from the start of a fresh process to its first answer; may be missing.
    """

    threads: int = field(metadata=_AT_LEAST_1)
    load_ms: float = field(metadata=_AT_LEAST_0)
    stages: Mapping[str, Latency] = field(metadata={"schema": {"required": [TOTAL]}})
    busy_threads: float | None = field(default=None, metadata=_OPTIONAL_AT_LEAST_0)
    first_ms: float | None = field(default=None, metadata=_OPTIONAL_AT_LEAST_0)
    cold_start_ms: float | None = field(default=None, metadata=_OPTIONAL_AT_LEAST_0)

    def __post_init__(self) -> None:
        check_keywords(self)


@dataclass(frozen=True)
class VariantBench:
    """One variant.

    Attributes:
        engine: what ran it.
        timings: one for each thread count, no count twice.
        peak_memory_bytes: the largest resident memory of a process that ran nothing else; null: it was
            measured in one process with others.
        notes: what the engine did at a cost, in words.
        steady_memory_bytes: resident memory after the counted runs of a process that ran nothing else; may be
            missing.
        graphs: where the time of its graphs goes, by graph and thread count; may be missing.
    """

    engine: Software
    timings: tuple[Timing, ...] = field(metadata=_SOME)
    peak_memory_bytes: int | None = field(metadata=_AT_LEAST_1)
    notes: tuple[str, ...]
    steady_memory_bytes: int | None = field(default=None, metadata=_OPTIONAL_AT_LEAST_1)
    graphs: tuple[GraphOps, ...] = field(default=(), metadata=OPTIONAL)

    def __post_init__(self) -> None:
        check_keywords(self)
        counts = [timing.threads for timing in self.timings]
        if len(set(counts)) < len(counts):
            raise BundleError(f"timings has a thread count twice: {counts}")

    def timing(self, threads: int) -> Timing:
        """What was measured with a number of threads, which must be among those measured."""
        return next(timing for timing in self.timings if timing.threads == threads)

    def quickest(self) -> Timing:
        """The timing with the lowest median of whole answers; of equal ones that with the fewest threads."""
        return min(self.timings, key=lambda each: (each.stages[TOTAL].median, each.threads))


@dataclass(frozen=True)
class ConditionSample:
    """What the machine was like at one moment, or since the sample before.

    Attributes:
        at_s: seconds since the first sample.
        mhz: frequency of each processor that tells it, in MHz, ordered by their numbers; null: none does.
        temperature_c: of the warmest zone that belongs to the processor, in degrees Celsius; null: not known.
        other_load: processors that other programs kept busy since the sample before; null: not known.
        power_w: what the machine, or as much of it as is metered, took, in watts; null: not known.
    """

    at_s: float = field(metadata=_AT_LEAST_0)
    mhz: tuple[float, ...] | None
    temperature_c: float | None
    other_load: float | None = field(metadata=_AT_LEAST_0)
    power_w: float | None

    def __post_init__(self) -> None:
        check_keywords(self)


@dataclass(frozen=True)
class Conditions:
    """What the machine was like while the counted runs ran.

    Attributes:
        interval_s: seconds that were to lie between two samples.
        samples: in the order in which they were taken.
        throttled: whether the machine lowered its frequency to stay cool or powered; null: not known.
        energy_j: joules from the first sample to the last, of what `power_w` covers; null: not known.
        warnings: what makes the figures doubtful, in words.
    """

    interval_s: float = field(metadata=_AT_LEAST_0)
    samples: tuple[ConditionSample, ...]
    throttled: bool | None
    energy_j: float | None = field(metadata=_AT_LEAST_0)
    warnings: tuple[str, ...]

    def __post_init__(self) -> None:
        check_keywords(self)
        times = [sample.at_s for sample in self.samples]
        if times != sorted(times):
            raise BundleError("samples must be in the order in which they were taken")


@dataclass(frozen=True)
class SustainedWindow:
    """A part of a sustained load.

    Attributes:
        at_s: when it began, in seconds since the load's beginning.
        median_ms: of the whole answers that began in it.
        n: how many these are.
        mhz: frequency of the fastest processor, a mean, in MHz; null: not known.
        temperature_c: mean temperature, in degrees Celsius; null: not known.
    """

    at_s: float = field(metadata=_AT_LEAST_0)
    median_ms: float = field(metadata=_AT_LEAST_0)
    n: int = field(metadata=_AT_LEAST_1)
    mhz: float | None = field(metadata=_AT_LEAST_0)
    temperature_c: float | None

    def __post_init__(self) -> None:
        check_keywords(self)


@dataclass(frozen=True)
class Sustained:
    """One variant that answered without a pause.

    Attributes:
        variant: its name.
        threads: of an inference.
        duration_s: how long it answered.
        windows: parts of that time, in order.
        first_ms: median of the answers of the first minute; of the first window where it took under two.
        last_ms: likewise of the last.
        slowdown: last_ms / first_ms.
    """

    variant: str
    threads: int = field(metadata=_AT_LEAST_1)
    duration_s: float = field(metadata=_AT_LEAST_0)
    windows: tuple[SustainedWindow, ...] = field(metadata=_SOME)
    first_ms: float = field(metadata=_AT_LEAST_0)
    last_ms: float = field(metadata=_AT_LEAST_0)
    slowdown: float = field(metadata=_AT_LEAST_0)

    def __post_init__(self) -> None:
        check_keywords(self)


@dataclass(frozen=True)
class BenchResult:
    """What a bench measured of a bundle.

    Attributes:
        format: what this file is.
        version: of the format, `major.minor`.
        tool: what measured.
        machine: where.
        bundle: what.
        settings: how.
        variants: by name, as the bundle's manifest calls them.
        conditions: what the machine was like meanwhile; may be missing.
        sustained: what variants did under a sustained load; may be missing.
        peaks: what the machine can do, for every thread count at which operators were timed; may be missing.
        cache_bytes: size of the largest cache of a processor; may be missing: not known.
    """

    tool: Software
    machine: Machine
    bundle: BundleIdentity
    settings: Settings
    variants: Mapping[str, VariantBench]
    format: Literal["pocketvl-bench"] = FORMAT
    version: str = field(default=str(FORMAT_VERSION), metadata=_VERSION)
    conditions: Conditions | None = field(default=None, metadata=OPTIONAL)
    sustained: tuple[Sustained, ...] = field(default=(), metadata=OPTIONAL)
    peaks: tuple[Peak, ...] = field(default=(), metadata=OPTIONAL)
    cache_bytes: int | None = field(default=None, metadata=_OPTIONAL_AT_LEAST_1)

    def __post_init__(self) -> None:
        check_keywords(self)

    @classmethod
    def from_json(cls, text: str | bytes, where: str) -> BenchResult:
        """Parses and checks a result; keys that only a newer minor version has are ignored.

        Args:
            text: JSON.
            where: what to call it in messages.

        Raises:
            BundleError: it is not JSON, no bench result, of another major version, or not valid; the message
                names `where` and the key path.
        """
        value = parse_json(text, where)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise BundleError(f"{where} is no result of a bench: its format is not {FORMAT!r}")
        try:
            newer = FORMAT_VERSION.is_newer(value.get("version"))
        except BundleError as error:
            raise BundleError(f"{where}: {error}") from error
        return decode(cls, value, where, ignore_unknown=newer)

    def to_json(self) -> str:
        """The result as the text of a file."""
        return dump_json(self)


def in_order(stages: Iterable[str]) -> list[str]:
    """Stages, each once, as an answer goes through them; components, whose order no file tells, by name."""
    named = set(stages)
    return [
        *(stage for stage in _BEFORE if stage in named),
        *sorted(named.difference(COMMON_STAGES)),
        *(stage for stage in _AFTER if stage in named),
    ]


def bench_schema() -> str:
    """The JSON Schema of this version of the format, as the text of docs/bench.schema.json."""
    return schema_text(BenchResult, "A result of pocketvl's bench")
