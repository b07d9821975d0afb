"""The profiles that lie in a bundle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pocketvl.devices.profiling import PROFILES
from pocketvl.errors import RecipeError
from pocketvl_runtime.bench_result import BenchResult
from pocketvl_runtime.bundle import Bundle


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


def is_profile_of(profile: BenchResult, bundle: Bundle) -> bool:
    """Whether a profile was measured of a bundle as it is now."""
    return profile.bundle.manifest_file_sha256 == bundle.manifest_file_sha256()
