"""What a process tells of itself."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pocketvl_runtime import process
from pocketvl_runtime.process import age_ms, peak_rss_bytes, rss_bytes


def test_peak_memory_remembers_what_was_given_back() -> None:
    code = (
        "import numpy as np\n"
        "from pocketvl_runtime.process import peak_rss_bytes\n"
        "before = peak_rss_bytes()\n"
        "block = np.ones(200_000_000, np.uint8)\n"
        "del block\n"
        "print(peak_rss_bytes() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 190_000_000 < int(done.stdout) < 220_000_000


def test_peak_memory_is_known_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    known = peak_rss_bytes()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
    assert abs(peak_rss_bytes() - known) < 0.2 * known


def test_resident_memory_forgets_what_was_given_back() -> None:
    code = (
        "import numpy as np\n"
        "from pocketvl_runtime.process import rss_bytes\n"
        "before = rss_bytes()\n"
        "block = np.ones(200_000_000, np.uint8)\n"
        "held = rss_bytes()\n"
        "del block\n"
        "print(held - before, rss_bytes() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    held, left = map(int, done.stdout.split())
    assert 190_000_000 < held < 220_000_000
    assert left < 20_000_000


def test_a_process_knows_its_age() -> None:
    code = "import time; time.sleep(0.3)\nfrom pocketvl_runtime.process import age_ms\nprint(age_ms())\n"
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 300 <= float(done.stdout) <= 1000 * (time.perf_counter() - begin) + 20


def test_without_proc_age_and_memory_are_not_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "_STAT", tmp_path / "none")
    monkeypatch.setattr(process, "_STATUS", tmp_path / "none")
    assert age_ms() is None
    assert rss_bytes() is None
