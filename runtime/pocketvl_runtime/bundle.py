"""A bundle folder: its manifest, and its files behind their checksums."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.golden import GOLDEN_FILE, Golden
from pocketvl_runtime.manifest import MANIFEST_FILE, GraphSpec, Manifest, VariantSpec


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
        root = Path(root)
        if not root.is_dir():
            what = "is not a folder" if root.exists() else "does not exist"
            raise BundleError(f"{root} {what}; give the folder that `pocketvl export` wrote")
        return cls(root.resolve(), Manifest.read(root / MANIFEST_FILE))

    def file(self, path: str) -> Path:
        """The place of a file of the manifest, with its size and checksum checked.

        Raises:
            BundleError: it is not in the manifest, missing, outside the bundle, or not what was exported.
        """
        entry = self.manifest.files.get(path)
        if entry is None:
            raise BundleError(f"{self.root}: the manifest lists no file {path!r}")
        place = (self.root / path).resolve()
        if not place.is_relative_to(self.root):
            raise BundleError(
                f"{self.root}: {path!r} is a link that leaves the bundle; do not use this bundle"
            )
        try:
            with place.open("rb") as stored:
                digest = hashlib.file_digest(stored, "sha256").hexdigest()
            size = place.stat().st_size
        except OSError as error:
            raise BundleError(f"{place} cannot be read ({error.strerror}); copy the bundle again") from error
        if size != entry.bytes or digest != entry.sha256:
            raise BundleError(
                f"{place} is damaged: {size} bytes with sha256 {digest[:12]}..., expected {entry.bytes} "
                f"bytes with {entry.sha256[:12]}...; copy the bundle again"
            )
        return place

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
            raise BundleError(f"{self.root} has no variant {name!r}; it has {there}")
        return self.manifest.variants[name]

    def graphs(self, variant: str) -> tuple[GraphSpec, ...]:
        """The graphs of a variant."""
        return tuple(self.manifest.graphs[graph] for graph in self.variant(variant).graphs.values())

    def size_bytes(self, variant: str) -> int:
        """The sum of a variant's graph files."""
        return sum(self.manifest.files[graph.file].bytes for graph in self.graphs(variant))

    def golden(self) -> Golden:
        """The golden pack.

        Raises:
            BundleError: the bundle has none, or it is damaged.
        """
        return Golden.read(self.file(GOLDEN_FILE))
