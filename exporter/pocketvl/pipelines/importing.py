"""`pocketvl data import`: a dataset as somebody keeps it, as dataset folders in one step."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from pocketvl.data.importers import IMPORTERS
from pocketvl.data.importers.base import ReadOptions
from pocketvl.data.intake import ImportReport, IntakeSettings, write_datasets
from pocketvl.errors import DataError, StageError
from pocketvl.stage import (
    check_replaceable,
    read_record,
    replace_dir,
    scratch_beside,
    write_record,
)
from pocketvl_runtime.disk import full_disk, reason
from pocketvl_runtime.progress import Progress


@dataclass(frozen=True)
class ImportSettings:
    """Settings of an import.

    Attributes:
        format: one of `IMPORTERS`.
        source: a file or folder.
        out: where the dataset folders go; replaced in one step.
        reading: what the source does not say of itself.
        intake: how it becomes dataset folders.
    """

    format: str
    source: Path
    out: Path
    reading: ReadOptions = field(default_factory=ReadOptions)
    intake: IntakeSettings = field(default_factory=IntakeSettings)


def import_data(settings: ImportSettings, progress: Progress | None = None) -> ImportReport:
    """Import a dataset; interrupted, nothing but what stood there stands at `out`.

    Raises:
        DataError: the source cannot be read or used.
        StageError: something else stands at `out`, or it cannot be written.
    """
    source, out = settings.source, settings.out
    if not source.exists():
        raise DataError(f"{source} does not exist")
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise DataError(f"{out} lies in {source}, which is imported; name another place")
    check_replaceable(out, read_record)
    opened = IMPORTERS[settings.format](source, settings.reading)
    try:
        with scratch_beside(out) as folder:
            report = write_datasets(folder, opened, settings.intake, progress)
            write_record(folder)
            os.sync()  # once: a flush of every picture takes minutes where there are thousands
            replace_dir(folder, out, read_record)
    except OSError as error:
        full = full_disk(error, out.resolve().parent)
        raise StageError(f"cannot write {out}: {full or reason(error)}") from error
    return report
