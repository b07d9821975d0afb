"""The small bundle, as the tests of the runtime get it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.runtime.bundles import write_bundle


@pytest.fixture(scope="session")
def whole_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One bundle for all who only read it."""
    return write_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def bundle(whole_bundle: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(whole_bundle, tmp_path / "tiny"))
