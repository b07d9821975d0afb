"""`pocketvl choose`: the variant that a device should run, and a bundle of nothing else."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from pocketvl.errors import RecipeError
from pocketvl.evaluate.report import Report
from pocketvl.evaluate.report_json import REPORT_FILE, read_report
from pocketvl.pipelines.bundle import list_files, profiles_in
from pocketvl.pipelines.export import written_bundle
from pocketvl.pipelines.profiles import is_profile_of, read_profile
from pocketvl.select.choice import Choice, Limits, candidates_of
from pocketvl.select.choice import choose as choose_candidate
from pocketvl.stage.replace import check_replaceable, publish
from pocketvl.tasks.metrics import Metric
from pocketvl_runtime.bench_result import BenchResult
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.golden import GOLDEN_FILE
from pocketvl_runtime.manifest import FORMAT_VERSION, MANIFEST_FILE


@dataclass(frozen=True)
class ChooseRequest:
    """What to choose of a bundle.

    Attributes:
        bundle: its folder, with report.json in it.
        profile: a file that `pocketvl profile` wrote about this bundle.
        limits: what the choice must keep to.
        metric: whose loss counts; None: the one that loses most.
        out: where a bundle of the choice alone goes; None: nowhere.
    """

    bundle: Path
    profile: Path
    limits: Limits
    metric: Metric | None = None
    out: Path | None = None


@dataclass(frozen=True)
class Chosen:
    """What was chosen.

    Attributes:
        choice: with every candidate.
        profile: that it was made by.
        unmeasured: variants of the bundle that the profile lacks.
    """

    choice: Choice
    profile: BenchResult
    unmeasured: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """As `--json` prints it."""
        choice = self.choice
        return {
            "chosen": None if choice.chosen is None else asdict(choice.chosen),
            "closest": None if choice.closest is None else asdict(choice.closest),
            "candidates": [{**asdict(each.candidate), "reason": each.reason} for each in choice.judged],
            "unmeasured": list(self.unmeasured),
        }


def choose(request: ChooseRequest) -> Chosen:
    """Choose a variant and a thread count; write the bundle of it where one is wanted and something fits.

    Raises:
        BundleError: the bundle, its report or the profile cannot be read.
        RecipeError: the report or the profile is of another bundle, or the profile is of an emulated machine.
        StageError: the bundle cannot be written.
    """
    bundle = Bundle.open(request.bundle)
    if request.out is not None:
        if request.out.resolve() == bundle.root:
            raise RecipeError(f"{request.out} is the bundle to choose from; name another place")
        check_replaceable(request.out, written_bundle, profiles_in(request.out))
    report = read_report(bundle.root / REPORT_FILE)
    check_report(report, bundle)
    profile = read_profile(request.profile)
    _check_profile(profile, bundle, request.profile)
    variants = [report.variants[name] for name in bundle.manifest.variants]
    candidates = candidates_of(variants, profile, request.metric)
    counts = sorted({each.threads for each in candidates})
    if request.limits.threads not in (None, *counts):
        known = ", ".join(map(str, counts)) or "none"
        raise RecipeError(
            f"{request.profile}: nothing was measured at {request.limits.threads} threads, but {known}"
        )
    choice = choose_candidate(candidates, request.limits)
    if choice.chosen is not None and request.out is not None:
        with tempfile.TemporaryDirectory(prefix="pocketvl-choose-") as folder:
            write_single_variant(bundle, choice.chosen.variant, Path(folder))
            publish(Path(folder), request.out, written_bundle, profiles_in(request.out))
    unmeasured = tuple(name for name in bundle.manifest.variants if name not in profile.variants)
    return Chosen(choice, profile, unmeasured)


def write_single_variant(bundle: Bundle, variant: str, out: Path) -> None:
    """Write a bundle with the graphs of one variant.

    The golden pack stays, with that variant's tolerance; report and profiles, which are of the whole bundle,
    do not.

    Args:
        bundle: to take from; every file that is taken is checked.
        variant: of it.
        out: an empty folder.

    Raises:
        BundleError: a file is missing or damaged.
    """
    manifest, spec = bundle.manifest, bundle.variant(variant)
    dropped = frozenset().union(*(each.paths for each in manifest.variants.values())) - spec.paths
    for path in sorted(set(manifest.files) - dropped):
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_bytes(bundle.read(path))
    golden = bundle.golden()
    tolerance = {name: each for name, each in golden.tolerance.items() if name == variant}
    replace(golden, tolerance=tolerance).write(out / GOLDEN_FILE)
    provenance = dict(manifest.provenance)
    reasons = provenance.get("min_engine")
    if isinstance(reasons, dict):
        provenance["min_engine"] = {name: reason for name, reason in reasons.items() if name == variant}
    slim = replace(
        manifest,
        variants={variant: spec},
        files=list_files(out),
        provenance=provenance,
        version=FORMAT_VERSION,  # keys that only a newer version knows were not read
    )
    (out / MANIFEST_FILE).write_text(slim.to_json(), encoding="utf-8", newline="\n")


def check_report(report: Report, bundle: Bundle) -> None:
    """Check that a report speaks of a bundle's own variants.

    Raises:
        RecipeError: one is missing in it, or has another size there.
    """
    for name in bundle.manifest.variants:
        measured = report.variants.get(name)
        if measured is None or measured.size_bytes != bundle.size_bytes(name):
            what = "not in it" if measured is None else "of another size"
            raise RecipeError(
                f"{bundle.root / REPORT_FILE} is not of this bundle: {name} is {what}; "
                "measure again with `pocketvl verify`"
            )


def _check_profile(profile: BenchResult, bundle: Bundle, path: Path) -> None:
    """Raises RecipeError where a profile says nothing about a bundle on a device."""
    if not is_profile_of(profile, bundle):
        raise RecipeError(
            f"{path} is of another bundle ({profile.bundle.name}, manifest "
            f"{profile.bundle.manifest_file_sha256[:12]}...); profile this one"
        )
    if profile.machine.emulated:
        raise RecipeError(
            f"{path} was measured under emulation, which says nothing of a latency; profile the device"
        )
