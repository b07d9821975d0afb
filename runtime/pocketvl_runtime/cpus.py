"""How many processors this process may use: those it is allowed, as far as its control groups let it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/")
_OCTAL = re.compile(r"\\([0-7]{3})")


def usable_processors() -> int:
    """The number of threads that can really run at the same time in this process; at least 1.

    The smaller of its affinity (`taskset`, a cpuset) and its quota (`docker run --cpus`, a Kubernetes limit).
    Of a quota's fraction nothing is used: more threads than whole processors are stopped in mid-answer.
    """
    allowed = _allowed_processors()
    quota = cgroup_quota(_ROOT)
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def cgroup_quota(root: Path) -> float | None:
    """The processors that this process's control groups leave it, at every level; None for no limit.

    Args:
        root: of the file system; `/`.

    Source: proc_pid_mountinfo(5); the Linux kernel's admin-guide/cgroup-v2.rst (cpu.max) and
    scheduler/sched-bwc.rst (cpu.cfs_quota_us).
    """
    try:
        groups = _groups(root)
        mounts = list(_mounts(root))
    except (OSError, ValueError):  # not Linux, or /proc is not there
        return None
    quotas = []
    for hierarchy, mounted, place in mounts:
        if hierarchy in groups:
            for folder in _levels(root, groups[hierarchy], mounted, place):
                quotas += _quota(folder)
    return min(quotas, default=None)


def _allowed_processors() -> int:
    if sys.version_info >= (3, 13):
        return os.process_cpu_count() or 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _groups(root: Path) -> dict[str, PurePosixPath]:
    """This process's group in the unified hierarchy ("cgroup2") and in v1's for processors ("cgroup")."""
    groups = {}
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            groups["cgroup2"] = PurePosixPath(path)
        elif "cpu" in controllers.split(","):
            groups["cgroup"] = PurePosixPath(path)
    return groups


def _mounts(root: Path) -> Iterator[tuple[str, PurePosixPath, PurePosixPath]]:
    """Of mounts that may tell a quota: the kind of hierarchy, which of its groups is mounted, and where."""
    for line in _read(root / "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(" "), after.split(" ", 2)
        if kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(",")):
            yield kind, PurePosixPath(_unescaped(fields[3])), PurePosixPath(_unescaped(fields[4]))


def _levels(root: Path, group: PurePosixPath, mounted: PurePosixPath, place: PurePosixPath) -> Iterator[Path]:
    """The folders of a group and of all above it, as far as they are mounted.

    In a container, a group's path may be that of the host, of which only the container's own is mounted.
    """
    inside = group.relative_to(mounted) if group.is_relative_to(mounted) else PurePosixPath()
    if ".." in inside.parts:  # a group outside of this process's namespace
        inside = PurePosixPath()
    for level in (inside, *inside.parents):
        yield root / place.relative_to("/") / level


def _quota(folder: Path) -> list[float]:
    """The quota of one group, in processors; empty where it has none."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = _read(folder / "cpu.max").split()
        else:
            quota, period = (_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        return [int(quota) / int(period)] if quota.strip() != "max" and int(quota) > 0 else []
    except (OSError, ValueError, ZeroDivisionError):  # the root has none
        return []


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="surrogateescape")


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
