"""manifest.json: what a bundle says of itself, as checked, frozen types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.files import read_file
from pocketvl_runtime.manifest.checks import check_manifest
from pocketvl_runtime.manifest.digest import DIGEST_KEY, manifest_digest
from pocketvl_runtime.manifest.format1 import is_format1, upgrade_manifest
from pocketvl_runtime.manifest.graphs import ComponentGraph, GraphSpec, OutputPort, tensors_of
from pocketvl_runtime.manifest.names import (
    FORMAT,
    MANIFEST_FILE,
    MAX_JSON_BYTES,
    MAX_NAME_CHARS,
    Modality,
)
from pocketvl_runtime.manifest.processors import Processor
from pocketvl_runtime.manifest.tasks import Task
from pocketvl_runtime.manifest.variants import FileEntry, VariantSpec
from pocketvl_runtime.manifest.versions import BUNDLE_FORMAT, FORMAT_VERSION
from pocketvl_runtime.schema import decode, dump_json, encode, parse_json, tag_of


@dataclass(frozen=True)
class ModelInfo:
    """What the model is called, which family it is of, and what it takes in."""

    name: str
    family: str
    modalities: tuple[Modality, ...]

    def __post_init__(self) -> None:
        for key, text in {"name": self.name, "family": self.family}.items():
            if len(text) > MAX_NAME_CHARS:
                raise BundleError(f"{key} has {len(text)} characters, and at most {MAX_NAME_CHARS} may stand")


@dataclass(frozen=True)
class Manifest:
    """manifest.json.

    Attributes:
        processors: by name; ports refer to them.
        graphs: the contract of each component, by its name.
        variants: by `<engine>-<precision>`.
        tasks: what can be asked, by name.
        files: every file of the bundle but the manifest itself and what was measured, by its path.
        provenance: how it was made; for people.
        extensions: whatever others put here; no reader of this format looks at it.
    """

    model: ModelInfo
    processors: Mapping[str, Processor]
    graphs: Mapping[str, ComponentGraph]
    variants: Mapping[str, VariantSpec]
    tasks: Mapping[str, Task]
    files: Mapping[str, FileEntry]
    provenance: Mapping[str, object]
    extensions: Mapping[str, object] = field(default_factory=dict)
    version: str = FORMAT_VERSION
    format: Literal["pocketvl-bundle"] = "pocketvl-bundle"

    def __post_init__(self) -> None:
        BUNDLE_FORMAT.is_newer(self.version)
        check_manifest(self)

    @classmethod
    def from_json(cls, text: str | bytes, where: str = MANIFEST_FILE) -> Manifest:
        """Parses and checks a manifest; one of format 1 is upgraded.

        Raises:
            BundleError: not JSON, damaged, of a major version this runtime does not know, or not valid; the
                message names `where` and the key path.
        """
        value = parse_json(text, where)
        if is_format1(value):
            return decode(cls, upgrade_manifest(value, where), where)
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise BundleError(f"{where} is no manifest of a bundle: its format is not {FORMAT!r}")
        try:
            newer = BUNDLE_FORMAT.is_newer(value.get("version"))
            _check_digest(value.pop(DIGEST_KEY, None), text)
        except BundleError as error:
            raise BundleError(f"{where}: {error}") from error
        if newer:
            _drop_unknown_tasks_(value)
        return decode(cls, value, where, ignore_unknown=newer)

    @classmethod
    def read(cls, path: Path) -> Manifest:
        """Reads and checks a manifest file.

        Raises:
            BundleError: the file cannot be read or is not valid.
        """
        try:
            text = read_file(path, MAX_JSON_BYTES)
        except FileNotFoundError as error:
            raise BundleError(f"{path} does not exist; is {path.parent} a bundle?") from error
        except OSError as error:
            raise BundleError(f"{path} cannot be read ({error.strerror})") from error
        return cls.from_json(text, str(path))

    def to_json(self) -> str:
        """The manifest as text, with its checksum: same manifest, same text."""
        return signed(encode(self))

    def graph(self, variant: str, component: str) -> GraphSpec:
        """A component's graph as a variant has it; both must be there."""
        spec, contract = self.variants[variant], self.graphs[component]
        stored = spec.files[component]
        return GraphSpec(
            component,
            spec.engine,
            spec.precision,
            stored.file,
            tensors_of(contract.inputs, stored.ports),
            tensors_of(contract.outputs, stored.ports),
            stored.signature,
            spec.min_engine,
            stored.weights,
        )

    @property
    def spaces(self) -> frozenset[str]:
        """The spaces that its embeddings lie in."""
        outputs = (port for graph in self.graphs.values() for port in graph.outputs)
        return frozenset(port.space for port in outputs if port.space is not None)

    def output(self, port: str) -> OutputPort:
        """The output that "component.port" refers to; it must be there."""
        component, _, name = port.partition(".")
        found = self.graphs[component].output(name)
        assert found is not None
        return found


def signed(value: Mapping[str, Any]) -> str:
    """A manifest's JSON object as text, with its checksum: sorted keys, indent 1, trailing newline."""
    bare = {key: item for key, item in value.items() if key != DIGEST_KEY}
    return dump_json({**bare, DIGEST_KEY: manifest_digest(dump_json(bare))})


def _check_digest(promised: object, text: str | bytes) -> None:
    if promised is None:
        raise BundleError(f"{DIGEST_KEY} is missing; the manifest is damaged, copy the bundle again")
    digest = manifest_digest(text)
    if promised != digest:
        raise BundleError(
            f"is damaged or was edited: {DIGEST_KEY} is not {digest[:12]}..., which its content has; "
            "copy the bundle again"
        )


def _drop_unknown_tasks_(value: dict[str, Any]) -> None:
    """Takes out tasks of kinds that only a newer minor version has: the others can still be asked."""
    tasks = value.get("tasks")
    if isinstance(tasks, dict):
        known = {tag_of(kind)[1] for kind in get_args(Task)}
        value["tasks"] = {
            name: task
            for name, task in tasks.items()
            if not isinstance(task, dict) or not isinstance(task.get("kind"), str) or task["kind"] in known
        }
