"""How long a bundle's variants take on this machine: interleaved, so that its moods hit all alike."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import cast

import numpy as np

from pocketvl_runtime.audio import AudioInput
from pocketvl_runtime.backends import Array, Backend, open_backend
from pocketvl_runtime.bench_result import (
    TOTAL,
    BenchResult,
    BundleIdentity,
    Inputs,
    Latency,
    Settings,
    Software,
    Timing,
    VariantBench,
)
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.conditions import ConditionSampler
from pocketvl_runtime.embedding import MediaInput
from pocketvl_runtime.errors import InputError
from pocketvl_runtime.image import ImageInput
from pocketvl_runtime.machine import this_machine
from pocketvl_runtime.manifest import (
    AudioProcessor,
    ContrastiveTask,
    ImageProcessor,
    MatchTask,
    TextProcessor,
)
from pocketvl_runtime.model import Model, load
from pocketvl_runtime.obstacles import is_embed_only, runnable_tasks
from pocketvl_runtime.op_profile import GraphProfile, described_graph, made_up_inputs, run_rounds
from pocketvl_runtime.op_result import GraphOps, Peak
from pocketvl_runtime.peaks import largest_cache_bytes, measure_peak
from pocketvl_runtime.process import age_ms, peak_rss_bytes, rss_bytes
from pocketvl_runtime.progress import Progress
from pocketvl_runtime.sustained import Answers, answer_for, summarize
from pocketvl_runtime.version import __version__

_SEED = 0
_WARMUP_RUNS = 1


@dataclass(frozen=True)
class _Asked:
    media: MediaInput | None
    text: str | None


@dataclass
class _Runner:
    model: Model
    load_ms: float
    timings: list[dict[str, float]] = field(default_factory=list)  # of each counted run, by stage
    cpu_s: float = 0.0  # of the process, over the counted runs
    wall_s: float = 0.0
    first_ms: float | None = None
    first_at_age_ms: float | None = None  # of the process

    def answer(self, asked: _Asked) -> dict[str, float]:
        """Milliseconds by stage of one match, or of one question, or of what encoders by themselves give.

        Where a match can be reranked, it is, so that every graph of the bundle is run.
        """
        if is_embed_only(self.model.manifest):
            return self.model.embedding_timing_ms(asked.media, asked.text)
        assert asked.media is not None
        assert asked.text is not None
        tasks = runnable_tasks(self.model.manifest)
        reranking = tasks.get("rerank")
        if isinstance(reranking, MatchTask):
            top = 1 if isinstance(tasks.get(reranking.reranks or ""), ContrastiveTask) else None
            return asdict(self.model.rerank(asked.media, [asked.text], top).timing_ms)
        if "match" in tasks:
            return asdict(self.model.match(asked.media, [asked.text]).timing_ms)
        return asdict(self.model.ask(cast(ImageInput, asked.media), asked.text).timing_ms)

    def run(self, asked: _Asked, counted: bool) -> None:
        cpu_s, begin = time.process_time(), time.perf_counter()
        timing = self.answer(asked)
        if counted:
            self.wall_s += time.perf_counter() - begin
            self.cpu_s += time.process_time() - cpu_s
            self.timings.append(timing)
        if self.first_ms is None:
            self.first_ms, self.first_at_age_ms = timing[TOTAL], age_ms()


class _Turns:
    """Rounds in which every runner answers once, in an order that changes, and sustained loads after them."""

    def __init__(
        self, runners: Sequence[_Runner], asked: _Asked, total: int, progress: Progress | None
    ) -> None:
        self._order = list(runners)  # no variant always runs in the wake of the same other one
        self._shuffle = random.Random(_SEED)
        self._asked = asked
        self._total = total
        self._tell: Progress = progress if progress is not None else lambda done, total, what: None
        self._done = 0

    def run(self, rounds: int, counted: bool) -> None:
        for _ in range(rounds):
            self._shuffle.shuffle(self._order)
            for runner in self._order:
                runner.run(self._asked, counted)
            self._done += 1
            self._tell(self._done, self._total, "timing")

    def sustain(self, runner: _Runner, duration_s: float, sampler: ConditionSampler) -> _Load:
        """Lets one runner answer without a pause; a second is worth a round in what is told."""
        begin_s, before, what = sampler.elapsed_s(), self._done, f"sustained load of {runner.model.variant}"

        def tell(elapsed_s: float) -> None:
            self._tell(min(before + int(elapsed_s), self._total), self._total, what)

        answers = answer_for(duration_s, lambda: runner.answer(self._asked)[TOTAL], tell)
        self._done += ceil(duration_s)
        self._tell(self._done, self._total, what)
        return _Load(runner.model, begin_s, answers)


@dataclass(frozen=True)
class _Load:
    model: Model
    begin_s: float  # on the sampler's clock
    answers: Answers


def bench(
    bundle: Bundle,
    variants: Sequence[str],
    threads: Sequence[int],
    runs: int,
    image: ImageInput | None = None,
    text: str | None = None,
    progress: Progress | None = None,
    *,
    warmup_runs: int = _WARMUP_RUNS,
    keep_samples: bool = False,
    duration_s: float = 0.0,
    fresh: bool = False,
    ops: bool = False,
    audio: AudioInput | None = None,
) -> BenchResult:
    """Times variants at thread counts, one run of each a round, in an order that changes.

    Args:
        bundle: opened.
        variants: names of variants; one named twice is measured once.
        threads: numbers of threads, likewise.
        runs: counted runs of each.
        image: default: the golden pack's first picture.
        text: default: the golden pack's first text.
        progress: told after every round.
        warmup_runs: runs of each before the counted ones.
        keep_samples: put every counted run into the result, not only their percentiles.
        duration_s: for how many seconds each variant then answers without a pause, one after the other, at
            the largest number of threads; 0: none does.
        fresh: this process was started for nothing else, so that the first answer of a single variant at a
            single thread count tells how long a cold start takes.
        ops: then tell for each variant at each number of threads which operators its graphs' time goes to.
        audio: in place of an image, for a model that listens; default: the golden pack's first sound.

    Raises:
        InputError: nothing to do.
        PocketVLError: what loading or running raises.
    """
    if not variants or not threads or runs < 1 or warmup_runs < 0 or duration_s < 0:
        raise InputError("bench needs at least one variant, one thread count and one run")
    if image is not None and audio is not None:
        raise InputError("bench takes an image or a sound, not both")
    asked = _asked(bundle, image if audio is None else audio, text)
    runners: dict[tuple[str, int], _Runner] = {}
    for name in variants:
        for count in threads:
            if (name, count) not in runners:
                runners[name, count] = _open(bundle, name, count)
    alone, loaded = len(runners) == 1, list(dict.fromkeys(variants)) if duration_s else []
    seconds = len(loaded) * ceil(duration_s)
    turns = _Turns(list(runners.values()), asked, warmup_runs + runs + seconds, progress)
    turns.run(warmup_runs, counted=False)
    with ConditionSampler() as sampler:
        turns.run(runs, counted=True)
        memory = (peak_rss_bytes(), rss_bytes()) if alone else (None, None)
        loads = [turns.sustain(runners[name, max(threads)], duration_s, sampler) for name in loaded]
        graphs = _graph_ops(runners, asked, progress) if ops else {}
    machine, is_given = this_machine(), any(each is not None for each in (image, audio, text))
    conditions = sampler.conditions(machine, threads)
    return BenchResult(
        Software("pocketvl-runtime", __version__),
        machine,
        _identity(bundle),
        Settings(runs, warmup_runs, True, _SEED, Inputs.GIVEN if is_given else Inputs.GOLDEN),
        {
            name: replace(
                _measured(
                    [r for (v, _), r in runners.items() if v == name], memory, alone and fresh, keep_samples
                ),
                graphs=tuple(graphs.get(name, ())),
            )
            for name in variants
        },
        conditions=conditions,
        sustained=tuple(
            summarize(
                each.model.variant,
                each.model.threads,
                duration_s,
                each.answers,
                conditions.samples,
                each.begin_s,
            )
            for each in loads
        ),
        peaks=_peaks(bundle, variants, threads) if ops else (),
        cache_bytes=largest_cache_bytes() if ops else None,
    )


def bench_graph(
    path: Path, threads: Sequence[int], runs: int, progress: Progress | None = None
) -> BenchResult:
    """Times a graph file that is in no bundle, on inputs that are made up, and its operators.

    Args:
        path: a .onnx or .tflite file of one signature.
        threads: numbers of threads.
        runs: counted runs at each.
        progress: told after each number of threads.

    Raises:
        InputError: it is no such file, or nothing to do.
        BackendError: the engine is not installed, or refuses it.
    """
    if not threads or runs < 1:
        raise InputError("bench needs at least one thread count and one run")
    graph, content = described_graph(path)
    inputs, timings, profiles = made_up_inputs(graph), [], []
    counts = list(dict.fromkeys(threads))
    with ConditionSampler() as sampler:
        for count in counts:
            begin = time.perf_counter()
            backend = open_backend(graph, content, count)
            load_ms = 1000 * (time.perf_counter() - begin)
            took = _milliseconds(backend, inputs, runs)
            timings.append(Timing(count, load_ms, {TOTAL: _latency(took, keep_samples=False)}))
            profiles.append(GraphProfile(graph, content, backend, count, inputs))
        graphs = run_rounds(profiles, progress)
    machine = this_machine()
    engine, _, version = backend.name.rpartition(" ")
    measured = VariantBench(
        Software(engine, version), tuple(timings), None, backend.notes, graphs=tuple(graphs)
    )
    return BenchResult(
        Software("pocketvl-runtime", __version__),
        machine,
        BundleIdentity(path.name, hashlib.sha256(content).hexdigest()),
        Settings(runs, _WARMUP_RUNS, False, None, Inputs.PREPARED),
        {graph.engine.value: measured},
        conditions=sampler.conditions(machine, counts),
        peaks=tuple(measure_peak([graph.engine], count) for count in counts),
        cache_bytes=largest_cache_bytes(),
    )


def _milliseconds(backend: Backend, inputs: Mapping[str, Array], runs: int) -> list[float]:
    """How long each of the runs takes, after one that is not counted."""
    backend.run(inputs)
    took = []
    for _ in range(runs):
        begin = time.perf_counter()
        backend.run(inputs)
        took.append(1000 * (time.perf_counter() - begin))
    return took


def _graph_ops(
    runners: Mapping[tuple[str, int], _Runner], asked: _Asked, progress: Progress | None
) -> dict[str, list[GraphOps]]:
    """By variant, the operators of every graph that an answer runs, on that answer's inputs."""
    profiles: list[GraphProfile] = []
    variants: list[str] = []
    for (name, _), runner in runners.items():
        for profile in _graph_profiles(runner, asked):
            profiles.append(profile)
            variants.append(name)
    found: dict[str, list[GraphOps]] = {}
    for name, each in zip(variants, run_rounds(profiles, progress), strict=True):
        found.setdefault(name, []).append(each)
    return found


def _graph_profiles(runner: _Runner, asked: _Asked) -> Iterator[GraphProfile]:
    model = runner.model
    with model.recorded() as recorders:
        runner.answer(asked)
    for name, recorder in recorders.items():
        if recorder.inputs:
            graph = model.manifest.graph(model.variant, name)
            content, weights = model.bundle.read(graph.file), model.bundle.read_weights(graph)
            yield GraphProfile(graph, content, recorder.backend, model.threads, recorder.inputs, weights)


def _peaks(bundle: Bundle, variants: Sequence[str], threads: Sequence[int]) -> tuple[Peak, ...]:
    engines = [bundle.variant(name).engine for name in variants]
    return tuple(measure_peak(engines, count) for count in dict.fromkeys(threads))


def _open(bundle: Bundle, variant: str, threads: int) -> _Runner:
    start = time.perf_counter()
    model = load(bundle, variant, threads, allow_non_finite=True)
    return _Runner(model, 1000 * (time.perf_counter() - start))


def _identity(bundle: Bundle) -> BundleIdentity:
    return BundleIdentity(bundle.manifest.model.name, bundle.manifest_file_sha256())


def _measured(
    runners: Sequence[_Runner], memory: tuple[int | None, int | None], cold: bool, keep_samples: bool
) -> VariantBench:
    model = runners[0].model
    engine, _, version = model.engine.rpartition(" ")
    timings = tuple(_timing(runner, cold, keep_samples) for runner in runners)
    peak, steady = memory
    return VariantBench(Software(engine, version), timings, peak, model.notes, steady)


def _timing(runner: _Runner, cold: bool, keep_samples: bool) -> Timing:
    return Timing(
        runner.model.threads,
        runner.load_ms,
        {
            stage: _latency([timing[stage] for timing in runner.timings], keep_samples)
            for stage in runner.timings[0]
        },
        busy_threads=runner.cpu_s / runner.wall_s,
        first_ms=runner.first_ms,
        cold_start_ms=runner.first_at_age_ms if cold else None,
    )


def _latency(values: Sequence[float], keep_samples: bool) -> Latency:
    p10, median, p90, p99 = (float(value) for value in np.percentile(values, (10, 50, 90, 99)))
    samples = tuple(values) if keep_samples else None
    return Latency(p10, median, p90, max(values), len(values), p99, samples)


def _asked(bundle: Bundle, media: MediaInput | None, text: str | None) -> _Asked:
    """A picture or a sound, and a text; of an encoder by itself the one that it reads."""
    if not is_embed_only(bundle.manifest):
        return _Asked(
            media if media is not None else _golden_media(bundle),
            text if text is not None else _golden_text(bundle),
        )
    sees, reads = (
        any(isinstance(each, kind) for each in bundle.manifest.processors.values())
        for kind in (ImageProcessor | AudioProcessor, TextProcessor)
    )
    if (media is not None and not sees) or (text is not None and not reads):
        raise InputError(f"{bundle.manifest.model.name} embeds {'pictures' if sees else 'texts'} alone")
    return _Asked(
        media if media is not None or not sees else _golden_media(bundle),
        text if text is not None or not reads else _golden_text(bundle),
    )


def _golden_media(bundle: Bundle) -> Path:
    golden = bundle.golden()
    files = [*(each.file for each in golden.images), *(each.file for each in golden.sounds)]
    if not files:
        listens = any(isinstance(each, AudioProcessor) for each in bundle.manifest.processors.values())
        raise InputError(f"the golden pack has no {'sound' if listens else 'picture'}: give one to time")
    return bundle.file(files[0])


def _golden_text(bundle: Bundle) -> str:
    texts = bundle.golden().texts
    if not texts:
        raise InputError("the golden pack has no text: give one to time")
    return texts[0].text
