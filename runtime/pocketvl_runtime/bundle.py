"""A bundle folder: its manifest, and its files behind their checksums.

Links are followed wherever they lead, for caches keep bundles as folders of links. What is read through one
is used only where its checksum is that of the manifest, and the manifest is whatever its maker wrote. Devices
and pipes are never read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pocketvl_runtime.errors import BundleError, quoted
from pocketvl_runtime.files import read_file, regular_size
from pocketvl_runtime.golden import GOLDEN_FILE, Golden
from pocketvl_runtime.manifest import (
    FORMAT_VERSION,
    MANIFEST_FILE,
    MAX_JSON_BYTES,
    GraphSpec,
    Manifest,
    VariantSpec,
)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle; its manifest is valid, its files are checked when they are asked for."""

    root: Path
    manifest: Manifest

    @classmethod
    def open(cls, root: str | Path) -> Bundle:
        """Reads the manifest.

        Raises:
            BundleError: no such folder, no manifest in it, or one that is not valid.
        """
        if not str(root):
            raise BundleError("the path of the bundle is empty; give the folder that `pocketvl export` wrote")
        root = Path(root)
        with _reading(root):
            is_folder, exists = root.is_dir(), root.exists()
        if not is_folder:
            what = "is not a folder" if exists else "does not exist"
            raise BundleError(f"{root} {what}; give the folder that `pocketvl export` wrote")
        root = root.resolve()
        return cls(root, _read_manifest(root))

    def manifest_file_sha256(self) -> str:
        """SHA-256 of the bytes of manifest.json, 64 lower-case hex digits: which bundle a profile is of.

        Raises:
            BundleError: it cannot be read.
        """
        return hashlib.sha256(read_file(self.root / MANIFEST_FILE, MAX_JSON_BYTES)).hexdigest()

    def file(self, path: str) -> Path:
        """The place of a file of the manifest, with its size and checksum checked.

        Raises:
            BundleError: it is not in the manifest, missing, or not what was exported.
        """
        place = self._sized(path)
        with _reading(place), place.open("rb") as stored:
            digest = hashlib.file_digest(stored, "sha256").hexdigest()
        self._check_digest(path, digest)
        return place

    def read(self, path: str) -> bytes:
        """The bytes of a file of the manifest: read once, and those are the ones that are checked.

        Raises:
            BundleError: as `file` does.
        """
        place = self._sized(path)
        with _reading(place), place.open("rb") as stored:
            content = stored.read(self.manifest.files[path].bytes)
        self._check_digest(path, hashlib.sha256(content).hexdigest())
        return content

    def read_weights(self, graph: GraphSpec) -> bytes | None:
        """The bytes of the weights that a graph keeps outside its file; None where it has all.

        Raises:
            BundleError: as `file` does.
        """
        return None if graph.weights is None else self.read(graph.weights)

    def verify(self, paths: Iterable[str] | None = None) -> int:
        """Checks files (default: all of the manifest) and returns how many there were.

        Raises:
            BundleError: one is missing or damaged.
        """
        chosen = list(self.manifest.files if paths is None else paths)
        for path in chosen:
            self.file(path)
        return len(chosen)

    def variant(self, name: str) -> VariantSpec:
        """A variant by its name.

        Raises:
            BundleError: there is none of that name; the message lists those there are.
        """
        if name not in self.manifest.variants:
            there = ", ".join(sorted(self.manifest.variants)) or "none"
            raise BundleError(f"{self.root} has no variant {quoted(name)}; it has {there}")
        return self.manifest.variants[name]

    def graphs(self, variant: str) -> tuple[GraphSpec, ...]:
        """The graphs of a variant."""
        return tuple(self.manifest.graph(variant, component) for component in self.variant(variant).files)

    def size_bytes(self, variant: str) -> int:
        """The sum of a variant's graph files, and of the weights beside them."""
        return sum(self.manifest.files[path].bytes for path in self.variant(variant).paths)

    def golden(self) -> Golden:
        """The golden pack.

        Raises:
            BundleError: the bundle has none, or it is damaged.
        """
        return Golden.read(self.file(GOLDEN_FILE), self.manifest)

    def _sized(self, path: str) -> Path:
        """The place of a file of the manifest that is regular and has the right size; nothing is read yet."""
        entry = self.manifest.files.get(path)
        if entry is None:
            raise BundleError(f"{self.root}: the manifest lists no file {quoted(path)}")
        place = self.root / path
        with _reading(place):
            size = regular_size(place)
        if size != entry.bytes:
            raise BundleError(
                f"{place} is damaged: {size} bytes, expected {entry.bytes}; copy the bundle again"
            )
        return place

    def _check_digest(self, path: str, digest: str) -> None:
        expected = self.manifest.files[path].sha256
        if digest != expected:
            raise BundleError(
                f"{self.root / path} is damaged: its sha256 is not the expected {expected[:12]}...; "
                "copy the bundle again"
            )


def _read_manifest(root: Path) -> Manifest:
    """The manifest; where it is a link to a file elsewhere, no error quotes what that holds."""
    place = root / MANIFEST_FILE
    try:
        return Manifest.read(place)
    except BundleError as error:
        with _reading(place):
            real = place.resolve()
        if real.is_relative_to(root) or isinstance(error.__cause__, OSError):
            raise
    raise BundleError(
        f"{place} is a link to {real}, which is no manifest of format {FORMAT_VERSION}; "
        "copy the bundle again, export it again or install another pocketvl-runtime"
    )


@contextmanager
def _reading(place: Path) -> Iterator[None]:
    """Maps what reading raises to BundleError; before Python 3.13 a loop of links is a RuntimeError."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        what = getattr(error, "strerror", None) or error
        raise BundleError(f"{place} cannot be read ({what}); copy the bundle again") from error
