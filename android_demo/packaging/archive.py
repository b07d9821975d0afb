"""Write an APK: a zip whose stored entries lie at addresses that can be memory-mapped."""

import struct
import zipfile
from pathlib import Path

LIBRARY_ALIGNMENT = 16384
"""Bytes: the largest memory page of Android devices, so that a library is loaded out of the APK."""
MODEL_ALIGNMENT = 4096
"""Bytes: weights must lie at multiples of 64 once mapped, and a page does for every engine."""
_ALIGNMENT_FIELD = 0xD935  # Android's extra field of a zip entry; signing keeps the alignment that it names
_LOCAL_HEADER = 30
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)


def alignment(name: str) -> int:
    """What an entry's first byte is to be a multiple of."""
    if name.endswith(".so"):
        return LIBRARY_ALIGNMENT
    return MODEL_ALIGNMENT if name.endswith((".tflite", ".onnx")) else 4


def is_stored(name: str) -> bool:
    """Whether an entry must not be compressed: it is mapped, or compressed already."""
    return name.endswith((".so", ".tflite", ".onnx", ".png", ".jpg", ".webp")) or name == "resources.arsc"


class ApkWriter:
    """An APK being written; same contents, same bytes."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path, "w")

    def add(self, name: str, content: bytes) -> None:
        """Append one entry."""
        entry = zipfile.ZipInfo(name, _TIMESTAMP)
        entry.external_attr = 0o644 << 16
        if is_stored(name):
            start = self._zip.start_dir + _LOCAL_HEADER + len(name.encode()) + 6
            padding = -start % alignment(name)
            entry.extra = struct.pack("<HHH", _ALIGNMENT_FIELD, 2 + padding, alignment(name)) + bytes(padding)
        else:
            entry.compress_type = zipfile.ZIP_DEFLATED
        self._zip.writestr(entry, content, compresslevel=9 if entry.compress_type else None)

    def close(self) -> None:
        """Write the directory."""
        self._zip.close()


def content_offset(path: Path, entry: zipfile.ZipInfo) -> int:
    """Where an entry's content begins in the file."""
    with path.open("rb") as file:
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER)
    name, extra = struct.unpack("<HH", header[26:30])
    return entry.header_offset + _LOCAL_HEADER + int(name) + int(extra)
