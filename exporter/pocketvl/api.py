"""pocketvl from Python: what the commands do, for notebooks and programs.

    from pocketvl import api

    result = api.export("checkpoints/tabletop-clip", "build/bundle", data="my-dataset")
    result.report.variants["tflite-int8"].metrics

Every function takes paths as str or Path, and checkpoints by their hub ids too ("hf:org/name"); it keeps
results of stages in `cache`, and tells `progress` of every stage; nothing is printed. Interrupted, the same
call goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pocketvl.errors import RecipeError
from pocketvl_runtime.progress import Progress

if TYPE_CHECKING:
    from pocketvl.data.intake import ImportReport
    from pocketvl.devices.base import Device
    from pocketvl.devices.comparison import ProfileComparison
    from pocketvl.evaluate.report import Report
    from pocketvl.explain.explanation import Explanation
    from pocketvl.families.checkpoint import Checkpoint
    from pocketvl.pipelines.choose import Chosen
    from pocketvl.pipelines.compress import Compressed
    from pocketvl.pipelines.export import ExportResult
    from pocketvl.pipelines.forecast import Forecast
    from pocketvl.pipelines.inspection import Inspection
    from pocketvl.pipelines.report import WrittenReport
    from pocketvl.stage import Event
    from pocketvl_runtime.bench_result import BenchResult
    from pocketvl_runtime.manifest import Engine

StageProgress = Callable[["Event"], None]
CALIBRATION = Path("calibration_data")
"""The dataset folder that graphs are calibrated with where none is named."""


def default_cache() -> Path:
    """Where results of stages are kept where no folder is named: ~/.cache/pocketvl.

    Raises:
        RecipeError: there is no home folder.
    """
    try:
        return Path.home() / ".cache" / "pocketvl"
    except RuntimeError:
        raise RecipeError("there is no home folder to keep a cache in: name one") from None


def fetch_checkpoint(source: str | Path, *, offline: bool = False, cache: str | Path | None = None) -> Path:
    """The folder of a checkpoint, which is downloaded where it is named by its hub id.

    Args:
        source: a Hugging Face or open_clip model folder, "hf:org/name", "hf:org/name@revision", or a name of
            open_clip, "open_clip:ViT-B-32/laion2b_s34b_b79k".
        offline: take hub ids from huggingface_hub's cache alone, as with HF_HUB_OFFLINE=1.
        cache: where results of stages are kept; by default `default_cache()`.

    Raises:
        SourceError: neither the hub nor the local cache has it.
    """
    from pocketvl.pipelines.source import checkpoint_folder

    return checkpoint_folder(source, _cache(cache), offline)


def load_checkpoint(source: str | Path, *, offline: bool = False) -> Checkpoint:
    """Open a checkpoint: its contract, transformers' own model, and its components as torch modules.

    Args:
        source: the checkpoint, as `fetch_checkpoint` takes it.
        offline: as there.

    Raises:
        SourceError: it is of no family that pocketvl knows, or broken.
    """
    from pocketvl.families import open_checkpoint

    return open_checkpoint(fetch_checkpoint(source, offline=offline))


def inspect(source: str | Path, *, offline: bool = False) -> Inspection:
    """Say what a checkpoint is made of, what it costs, and what can be done with it.

    Args:
        source: the checkpoint, as `fetch_checkpoint` takes it.
        offline: as there.

    Raises:
        SourceError: it is of no family that pocketvl knows, or broken.
    """
    from pocketvl.pipelines import inspection as pipeline

    return pipeline.inspect(fetch_checkpoint(source, offline=offline))


def export(
    source: str | Path,
    out: str | Path,
    *,
    calibration: str | Path = CALIBRATION,
    data: str | Path | None = None,
    variants: Sequence[str] | None = None,
    recipe: str = "default",
    train: str | Path | None = None,
    gate: str | Mapping[str, float] = "",
    keep_failing: bool = False,
    cache: str | Path | None = None,
    offline: bool = False,
    progress: StageProgress | None = None,
) -> ExportResult:
    """Turn a checkpoint into a verified bundle of ONNX and TFLite graphs.

    Args:
        source: the checkpoint, as `fetch_checkpoint` takes it.
        out: the bundle's folder; replaced when the new one is whole.
        calibration: a dataset folder.
        data: a dataset folder for task metrics; without it parity alone is measured.
        variants: names, as "tflite-int8"; by default those that `pocketvl export` makes.
        recipe: how graphs are calibrated, rounded and trained: a shipped name, or a .toml file.
        train: a dataset folder to train on, for recipes that train.
        gate: allowed losses in percentage points, {"match_hard": 0.5} or "match_hard=0.5".
        keep_failing: put variants that fail the gate in too, as experimental.
        cache: where results of stages are kept; by default `default_cache()`.
        offline: as in `fetch_checkpoint`.
        progress: called with every event of a stage.

    Returns:
        The bundle's path, None where no variant passed; the report, and what failed in it.

    Raises:
        PocketVLError: something is wrong with the inputs.
    """
    from pocketvl.pipelines import export as pipeline
    from pocketvl.pipelines.variants import DEFAULT_VARIANTS

    kept = _cache(cache)
    settings = pipeline.ExportSettings(
        fetch_checkpoint(source, offline=offline, cache=kept),
        Path(out),
        Path(calibration),
        _optional(data),
        DEFAULT_VARIANTS if variants is None else tuple(variants),
        _allowances(gate),
        keep_failing,
        recipe,
        _optional(train),
    )
    return pipeline.export(settings, kept, progress)


def search(
    source: str | Path,
    out: str | Path,
    *,
    budget: str,
    data: str | Path,
    calibration: str | Path = CALIBRATION,
    engine: Engine | str = "tflite",
    trials: int = 60,
    sampler: str = "gp",
    widths: Sequence[int] = (4, 8),
    seed: int = 0,
    recipe: str = "default",
    work: str | Path | None = None,
    gate: str | Mapping[str, float] = "",
    keep_failing: bool = False,
    cache: str | Path | None = None,
    offline: bool = False,
    progress: StageProgress | None = None,
    trial_progress: Progress | None = None,
) -> ExportResult:
    """Searches bits per layer under a budget, and exports what was found.

    Args:
        source: the checkpoint, as `fetch_checkpoint` takes it.
        out: the bundle's folder; replaced when the new one is whole.
        budget: "size=1.2MB" or "latency_ms=8", of one variant's graphs.
        data: a dataset folder; one part of it chooses, the rest judges.
        calibration: a dataset folder.
        engine: whose files or latency are limited; the bundle holds every engine.
        trials: how many choices are tried.
        sampler: "gp" or "tpe".
        widths: bits to choose from: 2 (ONNX Runtime alone), 4, 8, 32 (float).
        seed: of the sampler.
        recipe: as in `export`.
        work: where the study is kept, for going on, or for several processes at once; else `out`.search.
        gate: as in `export`.
        keep_failing: as in `export`.
        cache: as in `export`.
        offline: as in `fetch_checkpoint`.
        progress: called with every event of a stage.
        trial_progress: called after every trial.

    Returns:
        As `export`.

    Raises:
        PocketVLError: something is wrong with the inputs, or nothing meets the budget.
    """
    from pocketvl.pipelines import search as pipeline
    from pocketvl_runtime.manifest import Engine

    target, kept = Path(out), _cache(cache)
    request = pipeline.SearchRequest(
        fetch_checkpoint(source, offline=offline, cache=kept),
        target,
        target.with_name(target.name + ".search") if work is None else Path(work),
        Path(calibration),
        Path(data),
        budget,
        Engine(engine),
        trials,
        sampler,
        tuple(sorted(set(widths))),
        seed,
        recipe,
        _allowances(gate),
        keep_failing,
    )
    return pipeline.search(request, kept, progress, trial_progress)


def compress(
    source: str | Path,
    out: str | Path,
    *,
    recipe: str,
    data: str | Path,
    cache: str | Path | None = None,
    offline: bool = False,
    progress: StageProgress | None = None,
) -> Compressed:
    """Make a checkpoint smaller: prune, factorise and distil it as a recipe says.

    Args:
        source: the checkpoint, as `fetch_checkpoint` takes it; the teacher, too.
        out: the smaller checkpoint's folder; replaced when the new one is whole.
        recipe: a shipped name ("gentle", "balanced", "tiny", "cross-modal"), or a .toml file.
        data: a dataset folder to learn from.
        cache: as in `export`.
        offline: as in `fetch_checkpoint`.
        progress: called with every event of a stage.

    Returns:
        Parameters, multiply-adds and bytes in int8, before and after.

    Raises:
        PocketVLError: something is wrong with the inputs.
    """
    from pocketvl.pipelines import compress as pipeline

    kept = _cache(cache)
    request = pipeline.CompressRequest(
        fetch_checkpoint(source, offline=offline, cache=kept), recipe, Path(data), Path(out)
    )
    return pipeline.compress(request, kept, progress)


def forecast(
    source: str | Path,
    *,
    recipe: str,
    data: str | Path,
    cache: str | Path | None = None,
    offline: bool = False,
) -> Forecast:
    """Say what `compress` would do, about how long that takes here, and how much memory.

    Args:
        source: as in `compress`.
        recipe: as in `compress`.
        data: as in `compress`.
        cache: as in `export`.
        offline: as in `fetch_checkpoint`.

    Raises:
        PocketVLError: the compression could not run.
    """
    from pocketvl.pipelines import forecast as pipeline

    folder = fetch_checkpoint(source, offline=offline, cache=_cache(cache))
    return pipeline.forecast(folder, recipe, Path(data))


def verify(
    bundle: str | Path,
    source: str | Path,
    data: str | Path,
    *,
    gate: str | Mapping[str, float] = "",
    offline: bool = False,
    progress: StageProgress | None = None,
) -> Report:
    """Measure a bundle against its checkpoint again, and write its reports.

    Args:
        bundle: the bundle's folder; report.json and report.html in it are replaced.
        source: the checkpoint that it was exported from, as `fetch_checkpoint` takes it.
        data: a dataset folder that neither training nor calibration saw.
        gate: as in `export`.
        offline: as in `fetch_checkpoint`.
        progress: called with every event of a stage.

    Returns:
        The report; `report.failures` has one line for every figure over its allowance.

    Raises:
        RecipeError: the bundle is not of this checkpoint.
        PocketVLError: something else is wrong with the inputs.
    """
    from pocketvl.pipelines import export as pipeline

    folder = fetch_checkpoint(source, offline=offline)
    return pipeline.verify(Path(bundle), folder, Path(data), _allowances(gate), progress)


def profile(
    bundle: str | Path,
    device: Device | None = None,
    *,
    variants: Sequence[str] = (),
    all_variants: bool = False,
    threads: Sequence[int] = (),
    runs: int = 30,
    duration: float = 0.0,
    timeout: float = 900.0,
    samples: bool = False,
    explain: bool = False,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> BenchResult:
    """Measure how long a bundle's variants take on a device, and write the result down.

    Args:
        bundle: the bundle's folder.
        device: where; by default here.
        variants: names; by default the accepted ones that can run there.
        all_variants: those that failed the gate too, where none is named.
        threads: thread counts; by default 1, and as many as there are processors to use there, at most 4.
        runs: counted runs of each variant at each thread count.
        duration: for how many seconds each variant then answers without a pause; 0: none does.
        timeout: seconds that any one of the benches may take, beside `duration`.
        samples: keep every counted run.
        explain: measure too which operators the graphs' time goes to, for `api.explain` to read.
        out: the file to write; by default `profiles/DEVICE.json` in the bundle.
        progress: told what is being done.

    Returns:
        The figures, the machine and its conditions, as docs/BENCH.md describes them.

    Raises:
        PocketVLError: nothing can run there, the device cannot be reached, or a bench on it failed.
    """
    from pocketvl.devices import profiling
    from pocketvl.devices.local import LocalDevice
    from pocketvl_runtime.bundle import Bundle

    opened = Bundle.open(Path(bundle))
    for name in variants:
        opened.variant(name)
    place = device or LocalDevice(Path(bundle))
    place.progress = progress
    with place as entered:
        path = profiling.profile_path(Path(bundle), entered.name) if out is None else Path(out)
        profiling.check_writable(path)
        able = entered.abilities()
        settings = profiling.ProfileSettings(
            tuple(variants) or profiling.default_variants(opened, able, entered.name, all_variants),
            tuple(dict.fromkeys(threads)) or profiling.default_threads(able),
            runs,
            duration_s=duration,
            samples=samples,
            timeout_s=timeout,
            ops=explain,
        )
        result = profiling.profile(entered, settings, progress)
    profiling.write_profile(result, path)
    return result


def explain(bundle: str | Path, result: BenchResult) -> Explanation:
    """Explain why a bundle's variants take as long as a profile says.

    Args:
        bundle: the bundle's folder, or the graph file that `profile_graph` measured.
        result: of `profile` with `explain`, or of `profile_graph`.

    Returns:
        What the time goes to, faults and other findings, and advice.

    Raises:
        PocketVLError: the profile is of another bundle, or has no operators.
    """
    from pocketvl.explain.explanation import explain as explain_result
    from pocketvl.pipelines.profiles import is_profile_of
    from pocketvl_runtime.bundle import Bundle

    if Path(bundle).is_file():
        return explain_result(result, lambda variant, component: Path(bundle))
    opened = Bundle.open(Path(bundle))
    if not is_profile_of(result, opened):
        raise RecipeError(
            f"the profile is of another bundle than {bundle}, or of this one before it was changed"
        )
    return explain_result(
        result, lambda variant, component: opened.file(opened.manifest.graph(variant, component).file)
    )


def profile_graph(
    path: str | Path,
    *,
    threads: Sequence[int] = (),
    runs: int = 10,
    timeout: float = 900.0,
    progress: Progress | None = None,
) -> BenchResult:
    """Measure how long a graph file that is in no bundle takes here, and which operators its time goes to.

    Args:
        path: a .onnx or .tflite file with one signature; its inputs are made up.
        threads: thread counts; by default 1, and as many as there are processors to use, at most 4.
        runs: counted runs at each.
        timeout: seconds that it may take.
        progress: told what is being done.

    Raises:
        PocketVLError: the file is no such graph, or the engine refuses it.
    """
    from pocketvl.devices.local import bench_graph

    return bench_graph(Path(path), tuple(threads), runs, timeout, progress)


def compare_profiles(a: str | Path, b: str | Path) -> ProfileComparison:
    """Hold two profiles against each other.

    Args:
        a: a file that `profile` wrote.
        b: another; ratios are its figures over those of `a`.

    Returns:
        What differs of bundles and machines, and the stages that both measured: none where one was emulated.

    Raises:
        PocketVLError: a file cannot be read or is no profile.
    """
    from pocketvl.devices import comparison
    from pocketvl.pipelines.profiles import read_profile

    return comparison.compare_profiles(read_profile(Path(a)), read_profile(Path(b)))


def choose(
    bundle: str | Path,
    profile: str | Path,
    *,
    max_latency_ms: float | None = None,
    max_size: str | float | None = None,
    max_loss_pp: float | None = None,
    metric: str | None = None,
    threads: int | None = None,
    out: str | Path | None = None,
) -> Chosen:
    """Choose the variant and the thread count that a device should run.

    Of the accepted variants within the limits, the one that loses least; of several, the quickest.

    Args:
        bundle: the bundle's folder, with report.json in it.
        profile: the file that `pocketvl profile` wrote of this bundle on the device.
        max_latency_ms: of whole answers, their median.
        max_size: of the variant's graph files: bytes, or "20MB".
        max_loss_pp: against torch fp32, in percentage points, as it was estimated.
        metric: whose loss counts, "ask"; by default the one that loses most.
        threads: the thread count to choose among; by default every one that was measured.
        out: where a bundle of the chosen variant alone goes; nothing is written where nothing fits.

    Returns:
        The choice, and why everything else was passed over.

    Raises:
        PocketVLError: something is wrong with the inputs.
    """
    from pocketvl.pipelines import choose as pipeline
    from pocketvl.select.choice import Limits
    from pocketvl.select.search import parse_size
    from pocketvl.tasks.metrics import Metric

    if metric is not None and metric not in list(Metric):
        raise RecipeError(f"metric: {metric!r} is none of {', '.join(Metric)}")
    size = parse_size(max_size, "size") if isinstance(max_size, str) else max_size
    request = pipeline.ChooseRequest(
        Path(bundle),
        Path(profile),
        Limits(max_latency_ms, size, max_loss_pp, threads),
        None if metric is None else Metric(metric),
        _optional(out),
    )
    return pipeline.choose(request)


def report(bundle: str | Path, *, progress: Progress | None = None) -> WrittenReport:
    """Write a bundle's report.html anew, with the profiles in its folder profiles/.

    Args:
        bundle: the bundle's folder, with report.json in it.
        progress: told which variant answers the golden pack.

    Returns:
        The page, which profiles it shows, and which were left out, and why.

    Raises:
        PocketVLError: the bundle, its report or a profile cannot be read.
    """
    from pocketvl.pipelines import report as pipeline

    return pipeline.write_report(Path(bundle), progress)


def import_data(
    format: str,  # noqa: A002 - what the command calls it
    source: str | Path,
    out: str | Path,
    *,
    split: str = "",
    ignore_splits: bool = False,
    images: str | Path | None = None,
    class_names: Mapping[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    templates: Sequence[str] = (),
    link: bool = False,
    strict: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Make dataset folders of a dataset as somebody keeps it; docs/DATA.md says what is read of each format.

    Args:
        format: folders, coco, flickr, webdataset, parquet, jsonl or photos.
        source: a file or folder.
        out: the dataset folder, or the folder of those of the splits; replaced when it is whole.
        split: "train=rest,calibration=500,test=0.1"; by default the source's own splits, where it has some.
        ignore_splits: divide all of the source anew.
        images: the folder of pictures, where they are not beside the source.
        class_names: from a class folder's name or a class number to the label.
        columns: of tables, the columns of "image", "caption" and "label".
        templates: what labels stand in, as "a photo of a {label}"; to classify, the mean over all is taken.
        link: hard links to pictures of a folder in place of copies.
        strict: fail at the first picture that cannot be used.
        progress: told how many pictures are done.

    Raises:
        DataError: the source cannot be read or used.
        InputError: a template has no `{label}` in it.
        StageError: something else stands at `out`, or it cannot be written.
    """
    from pocketvl.data.importers import IMPORTERS
    from pocketvl.data.importers.base import ReadOptions
    from pocketvl.data.intake import IntakeSettings
    from pocketvl.data.splits import parse_splits
    from pocketvl.pipelines import importing
    from pocketvl_runtime.prompts import check_templates

    if format not in IMPORTERS:
        raise RecipeError(f"format: {format!r} is none of {', '.join(IMPORTERS)}")
    if templates:
        check_templates(templates)
    named = columns or {}
    reading = ReadOptions(
        _optional(images), class_names or {}, named.get("image"), named.get("caption"), named.get("label")
    )
    intake = IntakeSettings(
        parse_splits(split) if split else (), ignore_splits, link, strict, tuple(templates)
    )
    settings = importing.ImportSettings(format, Path(source), Path(out), reading, intake)
    return importing.import_data(settings, progress)


def _optional(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _cache(folder: str | Path | None) -> Path:
    return default_cache() if folder is None else Path(folder)


def _allowances(gate: str | Mapping[str, float]) -> str:
    return gate if isinstance(gate, str) else ",".join(f"{name}={value}" for name, value in gate.items())
