"""What pictures, sounds and texts become before a bundle's components are run, by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.manifest import (
    AudioProcessor,
    ContrastiveTask,
    EmbedTask,
    ImageProcessor,
    Manifest,
    Processor,
    TextProcessor,
    component_of,
)
from pocketvl_runtime.obstacles import outputs_of, refuse_task, runnable_tasks

Kind = TypeVar("Kind", bound=Processor, covariant=True)
Sensing: TypeAlias = ImageProcessor | AudioProcessor


@dataclass(frozen=True)
class Input(Generic[Kind]):
    """What a processor makes for a component.

    Attributes:
        port: an output of the component, "component.output": the task's own, or what its component reads.
        source: the processor.
        processor: that, as the manifest has it.
    """

    port: str
    source: str
    processor: Kind

    @property
    def component(self) -> str:
        return component_of(self.port)

    @property
    def output(self) -> str:
        return self.port.removeprefix(f"{self.component}.")


TaskInputs: TypeAlias = Mapping[str, tuple[Input[Sensing], Input[TextProcessor]]]
"""By task of a picture or sound and a text, what the two are made into."""


def inputs_by_task(bundle: Bundle) -> TaskInputs:
    """The inputs of the tasks that this runtime can run, but for those of an encoder by itself.

    Raises:
        BundleError: it can run none.
    """
    manifest = bundle.manifest
    tasks = runnable_tasks(manifest)
    if not tasks:
        for name in manifest.tasks:
            refuse_task(manifest, name)
        raise BundleError(f"{bundle.root} has no task; export the bundle again")
    return {
        name: (
            _input(manifest, outputs_of(task), ImageProcessor, AudioProcessor),
            _input(manifest, outputs_of(task), TextProcessor),
        )
        for name, task in tasks.items()
        if not isinstance(task, EmbedTask)
    }


def inputs_to_embed(
    manifest: Manifest, by_task: TaskInputs
) -> tuple[Input[Sensing] | None, Input[TextProcessor] | None]:
    """What becomes of pictures or sounds and texts where no task is named.

    By `match`, or the first task of two embeddings, or an encoder by itself, or the first task.
    """
    tasks = runnable_tasks(manifest)
    giving = [name for name, task in tasks.items() if isinstance(task, ContrastiveTask)]
    alone = [task.embedding for task in tasks.values() if isinstance(task, EmbedTask)]
    if giving or not alone:
        return by_task["match" if "match" in giving else next(iter(giving or tasks))]
    return (
        _find_input(manifest, alone, ImageProcessor, AudioProcessor),
        _find_input(manifest, alone, TextProcessor),
    )


def wanted(given: Input[Kind] | None, manifest: Manifest, otherwise: str) -> Input[Kind]:
    """What is given; raises BundleError, with what the model does instead, where nothing is."""
    if given is None:
        raise BundleError(f"{manifest.model.name} {otherwise}")
    return given


def _input(manifest: Manifest, ports: Sequence[str], *kinds: type[Kind]) -> Input[Kind]:
    """The input of a kind among those of some ports' components; `task_obstacle` made sure there is one."""
    found = _find_input(manifest, ports, *kinds)
    if found is None:
        raise BundleError(f"{' and '.join(ports)} have no {kinds[0].__name__}; export the bundle again")
    return found


def _find_input(manifest: Manifest, ports: Sequence[str], *kinds: type[Kind]) -> Input[Kind] | None:
    """The input of a kind among those of some ports' components, or of what these read from, if any."""
    for port in ports:
        inputs = manifest.graphs[component_of(port)].inputs
        for source in filter(None, (each.source for each in inputs)):
            processor = manifest.processors.get(source)
            if isinstance(processor, kinds):
                return Input(port, source, processor)
        read = [each.source for each in inputs if each.source and "." in each.source]
        found = _find_input(manifest, read, *kinds)
        if found is not None:
            return found
    return None
