"""`pocketvl report`: report.html anew, with the profiles that lie in the bundle."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from pathlib import Path

from pocketvl.errors import RecipeError
from pocketvl.evaluate.report_json import REPORT_FILE, read_report
from pocketvl.pipelines.bundle import golden_outputs
from pocketvl.pipelines.choose import check_report
from pocketvl.pipelines.measure import write_page
from pocketvl.pipelines.profiles import read_profiles
from pocketvl.tasks import task_of_manifest
from pocketvl.tasks.bundle_runner import BundleRunner
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.disk import reason
from pocketvl_runtime.progress import Progress

PAGE = "report.html"
_CURVES = re.compile(r'<img class="curves" src="data:image/png;base64,([A-Za-z0-9+/=]*)"')


@dataclass(frozen=True)
class WrittenReport:
    """A page that was written.

    Attributes:
        page: report.html.
        profiles: names of the profiles that it shows.
        left_out: a line for each profile that it does not show.
    """

    page: Path
    profiles: tuple[str, ...]
    left_out: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """As `--json` prints it."""
        return {"page": str(self.page), "profiles": list(self.profiles), "left_out": list(self.left_out)}


def write_report(folder: Path, progress: Progress | None = None) -> WrittenReport:
    """Write a bundle's report.html out of its report.json, its golden pack and its profiles.

    The variants answer the golden pack anew. Training curves, which stand nowhere else, are taken over from
    the page that is replaced.

    Args:
        folder: the bundle.
        progress: told which variant answers.

    Raises:
        BundleError: the bundle, its report or a profile cannot be read.
        RecipeError: the report is of another bundle, or the page cannot be written.
        BackendError: a variant cannot be run here.
    """
    bundle = Bundle.open(folder)
    report = read_report(bundle.root / REPORT_FILE)
    check_report(report, bundle)
    profiles = read_profiles(bundle)
    task = task_of_manifest(bundle.manifest)
    outputs, variants = {}, tuple(bundle.manifest.variants)
    for done, name in enumerate(variants, start=1):
        outputs[name] = golden_outputs(bundle, task, BundleRunner(bundle, name))
        if progress is not None:
            progress(done, len(variants), f"golden pack by {name}")
    page = bundle.root / PAGE
    try:
        write_page(bundle.root, report, bundle, task, outputs, _training_curves(page), profiles.results)
    except OSError as error:
        raise RecipeError(f"cannot write {page}: {reason(error)}") from error
    return WrittenReport(folder / PAGE, tuple(profiles.results), profiles.left_out)


def _training_curves(page: Path) -> bytes | None:
    """The PNG of training curves in a page that stands there; None where there is none."""
    try:
        found = _CURVES.search(page.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return None if found is None else base64.b64decode(found[1])
