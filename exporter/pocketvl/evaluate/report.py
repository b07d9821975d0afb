"""The report: everything that was measured of a bundle, typed. Field names are report.json's keys."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from pocketvl.data.dataset import SAMPLES_FILE, Dataset
from pocketvl.tasks.metrics import Metric
from pocketvl.tasks.parity import ParityReport
from pocketvl_runtime.manifest import Comparable, Engine, Precision, Status, variant_name

SCHEMA_VERSION = 3


@dataclass(frozen=True)
class MachineReport:
    """Where the latencies were taken; they say nothing about any other machine.

    Attributes:
        cpu: name of the processor.
        isa: instruction set that decides how fast int8 is, "avx2", "avx512_vnni", "neon+dotprod".
        threads: logical processors of the machine.
        exact_int8: whether the processor's int8 products are exact without help.
        engines: the inference engines with their versions.
    """

    cpu: str
    isa: str
    threads: int
    exact_int8: bool | None = None
    engines: dict[Engine, str] = field(default_factory=dict)


@dataclass(frozen=True)
class DataReport:
    """The dataset that the task metrics were measured on.

    Attributes:
        name: the folder's name, without the way to it.
        samples: pictures in it.
        texts: distinct texts, or questions, that were read.
        sha256: of its samples.jsonl.
    """

    name: str
    samples: int
    texts: int
    sha256: str


@dataclass(frozen=True)
class RateReport:
    """A rate with its interval: `value` and `ci95` (Wilson) are fractions in [0, 1] of `n` trials.

    `constant`, where it means something, is what one and the same answer comes to.
    """

    value: float
    n: int
    ci95: tuple[float, float]
    constant: float | None = None


@dataclass(frozen=True)
class MetricReport:
    """One task metric of one model.

    Attributes:
        value: share of right answers, in [0, 1].
        n: samples asked.
        ci95: Wilson 95 % interval of `value`.
        drop_pp: reference minus this model on the same samples, in percentage points; absent in the
            reference itself.
        drop_ci95: 95 % interval of `drop_pp` (Tango), in percentage points.
        lost: samples only the reference has right.
        gained: samples only this model has right.
        by_kind: for `match_hard` and `itm_hard`: share of single negatives of a kind that the caption ranks
            above; for `ask`: share of right answers by type of question; for `retrieval` and `classify`:
            share of what is right among the first 1, 5 or 10, as "text_to_image_r5" and "top5".
        constant: for `ask`: the share where every question of a type gets the one answer that is right most
            often.
    """

    value: float
    n: int
    ci95: tuple[float, float]
    drop_pp: float | None = None
    drop_ci95: tuple[float, float] | None = None
    lost: int | None = None
    gained: int | None = None
    by_kind: dict[str, RateReport] = field(default_factory=dict)
    constant: float | None = None


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one stage over interleaved runs: tenth percentile and median."""

    p10: float
    median: float


@dataclass(frozen=True)
class Fallback:
    """Layers moved to a higher precision together, and what that bought.

    Attributes:
        layers: their names in the component; those that read the same input go together.
        component: that they are part of.
        precision: what they are held in now: int8dyn keeps their 8-bit weights and gives floats.
        bytes_added: what the graph file grew by.
        before: per judged metric, the upper 95 % limit of the loss before, in percentage points.
        after: the same limits after.
    """

    layers: tuple[str, ...]
    component: str
    precision: Precision
    bytes_added: int
    before: dict[Metric, float] = field(default_factory=dict)
    after: dict[Metric, float] = field(default_factory=dict)


@dataclass(frozen=True)
class GateResult:
    """The gate's verdict on one variant.

    Attributes:
        passed: whether the variant may be shipped.
        allowance_pp: per metric that was judged, the loss allowed, in percentage points.
        fallbacks: groups of layers moved to a higher precision until the variant passed, in that
            order; in JSON a list of objects with the keys of `Fallback`.
        failures: one line per failed figure: variant, metric, measured, allowed.
        undecided: metrics that fail only because too few samples were asked: what was measured is within
            the allowance, and its interval is not. Each has its line in `failures` too.
        notes: what was not judged or not proved, and why.
    """

    passed: bool
    allowance_pp: dict[Metric, float] = field(default_factory=dict)
    fallbacks: tuple[Fallback, ...] = ()
    failures: tuple[str, ...] = ()
    undecided: tuple[Metric, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def wants_samples(self) -> bool:
        """Whether nothing failed but proofs, so that more samples may still let the variant pass."""
        return bool(self.undecided) and len(self.failures) == len(self.undecided)


@dataclass(frozen=True)
class VariantReport:
    """All figures of one variant.

    Attributes:
        engine: which engine runs it.
        precision: of its weights.
        status: what the bundle says of it: accepted, or experimental where the gate failed and it was kept
            all the same; absent where it is not in the bundle.
        size_bytes: sum of its graph files.
        files: bytes of each graph file.
        metrics: task metrics; empty where no task data was given.
        parity: by output port, "image_encoder.embedding", the outputs against the reference's.
        latency_ms: stage -> number of threads, as JSON's keys are text -> milliseconds.
        peak_rss_bytes: peak resident memory of a process that loads and runs this variant alone.
        ops: per component, how often each op stands in the graph.
        comparable: the embedding spaces its vectors may be compared with.
        gate: the verdict; absent before it was judged.
        notes: what its backend did on its own account.
    """

    engine: Engine
    precision: Precision
    status: Status | None
    size_bytes: int
    files: dict[str, int] = field(default_factory=dict)
    metrics: dict[Metric, MetricReport] = field(default_factory=dict)
    parity: dict[str, ParityReport] = field(default_factory=dict)
    latency_ms: dict[str, dict[str, Latency]] = field(default_factory=dict)
    peak_rss_bytes: int | None = None
    ops: dict[str, dict[str, int]] = field(default_factory=dict)
    comparable: tuple[Comparable, ...] = ()
    gate: GateResult | None = None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`<engine>-<precision>`."""
        return variant_name(self.engine, self.precision)


@dataclass(frozen=True)
class Sensitivity:
    """Loss from quantizing one layer alone, or layers that read the same input together.

    Attributes:
        layer: its name in the component; layers that go together are written "parent.{k_proj,q_proj,v_proj}".
        bits: of its weights.
        drop_pp: what a task metric loses by it, in percentage points; null where only `loss` was measured.
        component: that it is part of; null where that is not known.
        loss: what the outputs lose, a quick stand-in for `drop_pp`: 1 minus the median mean-centred cosine
            to those in float; null where only the task was measured.
    """

    layer: str
    bits: int
    drop_pp: float | None = None
    component: str | None = None
    loss: float | None = None


@dataclass(frozen=True)
class SearchTrial:
    """One choice of bits that a search tried.

    Attributes:
        number: in the order of trying, from 0.
        score: mean probability of the right answer on the samples that choose, in [0, 1].
        size_bytes: sum of the graph files, as predicted.
        latency_ms: one picture and one text on two threads; null where latency was not limited.
    """

    number: int
    score: float
    size_bytes: int
    latency_ms: float | None = None


@dataclass(frozen=True)
class SearchReport:
    """A search for bits per layer.

    Attributes:
        engine: whose files or latency were limited.
        budget: "size" or "latency_ms".
        limit: bytes or milliseconds.
        samples: that chose; others judge.
        sampler: what proposed the choices.
        trials: all that were tried.
        chosen: number of the one that the bundle holds as its variants of mixed precision.
        bits: of the chosen one, by group of layers.
    """

    engine: Engine
    budget: str
    limit: float
    samples: int
    sampler: str
    trials: tuple[SearchTrial, ...]
    chosen: int
    bits: dict[str, int]


@dataclass(frozen=True)
class Report:
    """All measurements of a bundle.

    Attributes:
        name: of the model.
        family: of the model.
        machine: where the latencies were taken.
        reference: task metrics of torch fp32; empty where no task data was given.
        variants: by name.
        data: what the task metrics were measured on; absent where none was given.
        sensitivity: per layer, where it was measured, in any order.
        search: how bits were chosen; null where they were not.
        notes: what was left out of the measurement, and why.
        provenance: stages, settings and tool versions, free JSON.
        schema_version: of report.json.
    """

    name: str
    family: str
    machine: MachineReport
    reference: dict[Metric, MetricReport]
    variants: dict[str, VariantReport]
    data: DataReport | None = None
    sensitivity: tuple[Sensitivity, ...] = ()
    search: SearchReport | None = None
    notes: tuple[str, ...] = ()
    provenance: dict[str, object] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def thread_counts(self) -> list[str]:
        """The thread counts that any stage of any variant was timed at, smallest first."""
        stages = (stage for variant in self.variants.values() for stage in variant.latency_ms.values())
        return sorted({threads for stage in stages for threads in stage}, key=int)

    @property
    def failures(self) -> tuple[str, ...]:
        """One line for every figure over its allowance, over all variants."""
        judged = (variant.gate for variant in self.ordered_variants())
        return tuple(failure for gate in judged if gate is not None for failure in gate.failures)

    def ordered_variants(self) -> list[VariantReport]:
        """The variants by engine, then from the most to the least precise."""
        engines, precisions = list(Engine), list(Precision)
        return sorted(
            self.variants.values(),
            key=lambda variant: (engines.index(variant.engine), precisions.index(variant.precision)),
        )


def describe_data(dataset: Dataset, texts: int) -> DataReport:
    """Name a dataset in a report: by folder name and content, never by where it lies."""
    digest = hashlib.sha256((dataset.root / SAMPLES_FILE).read_bytes()).hexdigest()
    return DataReport(dataset.root.name, len(dataset), texts, digest)
