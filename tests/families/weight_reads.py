"""Counts how often weights are read from files by safetensors, which no audit hook of Python sees."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch


class WeightReads:
    """How often each file was read; to look at its header alone does not count."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Args: monkeypatch: takes the counters off again."""
        self._read: Counter[Path] = Counter()
        load_file, safe_open, count = safetensors.torch.load_file, safetensors.safe_open, self._count

        def counted(path: Path, *args: Any, **kwargs: Any) -> Any:
            count(path)
            return load_file(path, *args, **kwargs)

        class Counted:
            def __init__(self, path: Path, *args: Any, **kwargs: Any) -> None:
                self.path = path
                self.file: Any = safe_open(path, *args, **kwargs)

            def __enter__(self) -> Counted:
                self.file.__enter__()
                return self

            def __exit__(self, *error: Any) -> None:
                self.file.__exit__(*error)

            def __getattr__(self, name: str) -> Any:
                return getattr(self.file, name)

            def get_tensor(self, name: str) -> Any:
                count(self.path)
                return self.file.get_tensor(name)

        monkeypatch.setattr(safetensors.torch, "load_file", counted)
        monkeypatch.setattr(safetensors, "safe_open", Counted)

    def of(self, folder: Path) -> int:
        """How often the weights of a folder were read."""
        return sum(count for path, count in self._read.items() if path.parent == folder.resolve())

    def _count(self, path: Path) -> None:
        self._read[Path(path).resolve()] += 1
