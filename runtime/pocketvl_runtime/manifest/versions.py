"""The version of the bundle format."""

from __future__ import annotations

from pocketvl_runtime.format_versions import FormatVersion

BUNDLE_FORMAT = FormatVersion(
    2, 0, "export the bundle again, or install the pocketvl-runtime that it was made for"
)
FORMAT_VERSION = str(BUNDLE_FORMAT)
