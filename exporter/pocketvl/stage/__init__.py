"""Stages: steps with settings, planned and checked together, their results cached by content."""

from __future__ import annotations

from pocketvl.stage.base import Inputs, Stage
from pocketvl.stage.desk import installed_version
from pocketvl.stage.link import link_or_copy
from pocketvl.stage.record import RECORD_FILE, read_record, write_record
from pocketvl.stage.replace import (
    check_replaceable,
    clean_up,
    publish,
    replace_dir,
    scratch_beside,
)
from pocketvl.stage.results import Event, EventKind, Plan, Result, Results
from pocketvl.stage.runner import PlanError, drop, plan, run
from pocketvl.stage.store import Sealed, Store

__all__ = [
    "RECORD_FILE",
    "Event",
    "EventKind",
    "Inputs",
    "Plan",
    "PlanError",
    "Result",
    "Results",
    "Sealed",
    "Stage",
    "Store",
    "check_replaceable",
    "clean_up",
    "drop",
    "installed_version",
    "link_or_copy",
    "plan",
    "publish",
    "read_record",
    "replace_dir",
    "run",
    "scratch_beside",
    "write_record",
]
