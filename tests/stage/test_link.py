"""Files that several results hold are one file where the system allows it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pocketvl.stage import link_or_copy

OTHER = Path("/dev/shm")


def test_a_link_is_the_same_file_and_outlives_the_first_name(tmp_path: Path) -> None:
    source, target = tmp_path / "a.onnx", tmp_path / "b.onnx"
    source.write_bytes(b"graph")
    link_or_copy(source, target)
    assert target.samefile(source)
    source.unlink()
    assert target.read_bytes() == b"graph"


@pytest.mark.skipif(not os.access(OTHER, os.W_OK), reason="no second file system to write to")
def test_between_file_systems_it_is_a_copy(tmp_path: Path) -> None:
    if OTHER.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("no second file system to write to")
    source = OTHER / f"pocketvl-link-{os.getpid()}"
    try:
        source.write_bytes(b"graph")
        link_or_copy(source, tmp_path / "b.onnx")
        assert (tmp_path / "b.onnx").read_bytes() == b"graph"
        assert (tmp_path / "b.onnx").stat().st_nlink == 1
    finally:
        source.unlink()


def test_nothing_that_stands_there_is_written_over(tmp_path: Path) -> None:
    source, target = tmp_path / "a.onnx", tmp_path / "b.onnx"
    source.write_bytes(b"graph")
    target.write_bytes(b"other")
    with pytest.raises(FileExistsError):
        link_or_copy(source, target)
    assert target.read_bytes() == b"other"
