"""report.json: the typed report written out and read back strictly, in the manifests' own way."""

from __future__ import annotations

from pathlib import Path

from pocketvl.evaluate.report import SCHEMA_VERSION, Report
from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.schema import decode, dump_json, parse_json

REPORT_FILE = "report.json"


def report_to_json(report: Report) -> str:
    """The report as text: sorted keys, indent 1, trailing newline.

    Raises:
        ValueError: a figure is NaN or infinite, which JSON does not have.
    """
    return dump_json(report)


def report_from_json(text: str | bytes, where: str = REPORT_FILE) -> Report:
    """The typed report of what `report_to_json` gave.

    Raises:
        BundleError: not JSON, another schema version, or a key that is missing, unknown or of the wrong
            type; the message names `where` and the key path.
    """
    value = parse_json(text, where)
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != SCHEMA_VERSION or isinstance(version, bool):
        raise BundleError(
            f"{where}: schema_version is {version!r}, this version reads {SCHEMA_VERSION}; "
            "measure again with `pocketvl verify`"
        )
    return decode(Report, value, where)


def read_report(path: Path) -> Report:
    """Read report.json.

    Raises:
        BundleError: it is missing, not JSON, or not of this schema.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        what = f"{path} cannot be read ({error.strerror})"
        raise BundleError(f"{what}; measure with `pocketvl verify` first") from error
    return report_from_json(text, str(path))
