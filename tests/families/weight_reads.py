"""Counts how often files of weights are opened by safetensors, which no audit hook of Python sees."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch


class WeightReads:
    """How often each file was opened."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Args: monkeypatch: takes the counters off again."""
        self._opened: Counter[Path] = Counter()
        for module, name in ((safetensors.torch, "load_file"), (safetensors, "safe_open")):
            monkeypatch.setattr(module, name, self._counting(getattr(module, name)))

    def of(self, folder: Path) -> int:
        """How often the weights of a folder were opened."""
        return sum(count for path, count in self._opened.items() if path.parent == folder.resolve())

    def _counting(self, plain: Any) -> Any:
        def counted(path: Path, *args: Any, **kwargs: Any) -> Any:
            self._opened[Path(path).resolve()] += 1
            return plain(path, *args, **kwargs)

        return counted
