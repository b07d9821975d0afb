"""The profiles that lie in a bundle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pocketvl.devices.profiling import PROFILES
from pocketvl.errors import RecipeError
from pocketvl.evaluate.explained_ops import ExplainedOps, OpsAdvice, OpsRow
from pocketvl_runtime.bench_result import BenchResult
from pocketvl_runtime.bundle import Bundle

if TYPE_CHECKING:
    from pocketvl.explain.explanation import Explanation


@dataclass(frozen=True)
class BundleProfiles:
    """What lies in a bundle's folder of profiles.

    Attributes:
        results: of this bundle, by the names of their files without ending, sorted.
        left_out: a line for each that is of another bundle.
    """

    results: dict[str, BenchResult]
    left_out: tuple[str, ...]


def read_profiles(bundle: Bundle) -> BundleProfiles:
    """Read profiles/*.json of a bundle.

    Raises:
        RecipeError: one cannot be read.
        BundleError: one is no profile.
    """
    results, left_out = {}, []
    for path in sorted((bundle.root / PROFILES).glob("*.json")):
        result = read_profile(path)
        if is_profile_of(result, bundle):
            results[path.stem] = result
        else:
            left_out.append(
                f"{PROFILES}/{path.name} is of another bundle, or of this one before it was changed"
            )
    return BundleProfiles(results, tuple(left_out))


def read_profile(path: Path) -> BenchResult:
    """A profile.

    Raises:
        RecipeError: the file cannot be read.
        BundleError: it is no profile.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RecipeError(
            f"{path} cannot be read ({error.strerror}); name a file of `pocketvl profile`"
        ) from error
    return BenchResult.from_json(content, str(path))


def explain_profiles(bundle: Bundle, profiles: Mapping[str, BenchResult]) -> dict[str, ExplainedOps]:
    """What the page says of the operators of profiles, by their names; of those where they were timed.

    Args:
        bundle: theirs.
        profiles: by name.

    Raises:
        LoweringError: a graph file cannot be read.
    """
    from pocketvl.explain.explanation import explain

    return {
        name: _shown(explain(each, lambda *graph: bundle.file(bundle.manifest.graph(*graph).file)))
        for name, each in profiles.items()
        if not each.machine.emulated and any(variant.graphs for variant in each.variants.values())
    }


def _shown(explanation: Explanation) -> ExplainedOps:
    from pocketvl.explain.explanation import class_rows
    from pocketvl.explain.finding import Severity

    rows = tuple(
        OpsRow(
            f"{variant.name} {graph.component} ×{graph.threads}",
            {row.kind.value: row.ms for row in class_rows(graph)},
        )
        for variant in explanation.variants
        for graph in variant.graphs
        if graph.ops
    )
    totals: Counter[str] = Counter()
    for each in rows:
        totals.update(each.parts)
    advice = tuple(
        OpsAdvice(
            variant.name,
            variant.advice.removeprefix(f"{variant.name} "),
            tuple(each.cause for each in variant.findings if each.severity is Severity.ALARM),
        )
        for variant in explanation.variants
    )
    return ExplainedOps(tuple(name for name, _ in totals.most_common()), rows, advice)


def is_profile_of(profile: BenchResult, bundle: Bundle) -> bool:
    """Whether a profile was measured of a bundle as it is now."""
    return profile.bundle.manifest_file_sha256 == bundle.manifest_file_sha256()
