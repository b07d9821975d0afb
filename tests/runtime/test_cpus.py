"""How many processors may be used: those that are allowed, and what control groups leave of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pocketvl_runtime import cpus
from pocketvl_runtime.cpus import cgroup_quota, usable_processors
from pocketvl_runtime.variant_choice import default_threads

V2 = "36 25 0:29 {mounted} /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "36 25 0:29 {mounted} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"
OTHERS = (
    "22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw\n"
    "37 25 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "38 25 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset"
)


def machine(root: Path, group: str, mount: str, files: dict[str, str]) -> Path:
    """A file system's root: this process's group, what is mounted, and the files of mounted groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(f"5:memory:/other\n{group}\n")
    (root / "proc/self/mountinfo").write_text(f"{OTHERS}\n{mount}\n")
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


def v2(root: Path, group: str, files: dict[str, str], mounted: str = "/") -> Path:
    places = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    return machine(root, f"0::{group}", V2.format(mounted=mounted), places)


def v1(root: Path, group: str, quotas: dict[str, tuple[int, int]], mounted: str = "/") -> Path:
    files: dict[str, str] = {}
    for name, (quota, period) in quotas.items():
        place = f"sys/fs/cgroup/cpu,cpuacct/{name}/cpu.cfs_"
        files |= {f"{place}quota_us": str(quota), f"{place}period_us": str(period)}
    return machine(root, f"4:cpuacct,cpu:{group}", V1.format(mounted=mounted), files)


@pytest.mark.parametrize(
    ("group", "files", "expected"),
    [
        ("/a/b", {"a/cpu.max": "max 100000", "a/b/cpu.max": "150000 100000"}, 1.5),
        ("/a/b", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "300000 100000"}, 0.5),
        ("/a/b", {"a/cpu.max": "20000 10000", "a/b/cpu.max": "max 100000"}, 2),
        ("/a/b", {"a/b/cpu.max": "max 100000"}, None),
        ("/a/b", {"a/c/cpu.max": "100000 100000"}, None),
        ("/a/b", {}, None),
        ("/", {"cpu.max": "200000 100000"}, 2),  # a container with a namespace of its own
        ("/../../host", {"cpu.max": "200000 100000"}, 2),
        ("/a/b", {"a/b/cpu.max": "100000 0"}, None),
        ("/a/b", {"a/b/cpu.max": "nonsense"}, None),
    ],
)
def test_the_strictest_quota_on_the_way_up_counts(
    group: str, files: dict[str, str], expected: float | None, tmp_path: Path
) -> None:
    assert cgroup_quota(v2(tmp_path, group, files)) == expected


@pytest.mark.parametrize(
    ("group", "quotas", "expected"),
    [
        ("/a/b", {"a": (-1, 100000), "a/b": (250000, 100000)}, 2.5),
        ("/a/b", {"a": (100000, 100000), "a/b": (-1, 100000)}, 1),
        ("/a/b", {"": (-1, 100000), "a/b": (-1, 100000)}, None),
    ],
)
def test_version_1_of_control_groups_counts_too(
    group: str, quotas: dict[str, tuple[int, int]], expected: float | None, tmp_path: Path
) -> None:
    assert cgroup_quota(v1(tmp_path, group, quotas)) == expected


def test_a_container_sees_its_own_group_at_the_mount(tmp_path: Path) -> None:
    quotas = {"": (300000, 100000), "inner": (200000, 100000), "docker/4f": (100000, 100000)}
    assert cgroup_quota(v1(tmp_path / "1", "/docker/4f", quotas, mounted="/docker/4f")) == 3
    assert cgroup_quota(v1(tmp_path / "2", "/docker/4f/inner", quotas, mounted="/docker/4f")) == 2
    assert cgroup_quota(v1(tmp_path / "3", "/elsewhere", quotas, mounted="/docker/4f")) == 3


def test_places_with_spaces_are_found(tmp_path: Path) -> None:
    mount = r"36 25 0:29 / /my\040groups rw - cgroup2 cgroup2 rw"
    assert cgroup_quota(machine(tmp_path, "0::/a", mount, {"my groups/a/cpu.max": "400000 100000"})) == 4


def test_without_proc_there_is_no_quota(tmp_path: Path) -> None:
    assert cgroup_quota(tmp_path) is None


@pytest.mark.parametrize("garbage", ["", "\n", "no colons", "36 25 0:29", "a - b", "\udcff"])
def test_whatever_proc_says_is_no_error(garbage: str, tmp_path: Path) -> None:
    root = v2(tmp_path, "/", {})
    for name in ("cgroup", "mountinfo"):
        (root / "proc/self" / name).write_text(garbage, errors="surrogateescape")
    assert cgroup_quota(root) is None


@pytest.mark.parametrize(
    ("quota", "allowed", "processors"),
    [(0.5, 8, 1), (1.5, 8, 1), (2.0, 8, 2), (3.9, 2, 2), (64.0, 8, 8), (None, 8, 8), (None, 1, 1)],
)
def test_both_limits_hold(
    quota: float | None, allowed: int, processors: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "max 1000" if quota is None else f"{int(quota * 1000)} 1000"
    monkeypatch.setattr(cpus, "_ROOT", v2(tmp_path, "/", {"cpu.max": text}))
    monkeypatch.setattr(cpus, "_allowed_processors", lambda: allowed)
    assert usable_processors() == processors
    assert default_threads() == min(4, processors)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_a_process_on_one_processor_takes_one_thread() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from pocketvl_runtime.variant_choice import default_threads; print(default_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"
