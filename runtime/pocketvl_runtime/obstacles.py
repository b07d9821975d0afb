"""What a bundle can say and this runtime cannot run yet, in words for whoever asks for it."""

from __future__ import annotations

from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.manifest import (
    Alpha,
    AudioProcessor,
    CenterCrop,
    ContrastiveTask,
    Filter,
    ImageProcessor,
    Manifest,
    Orientation,
    Processor,
    Resize,
    ResizeMode,
    Rounding,
    TextProcessor,
)
from pocketvl_runtime.manifest.processors import ImageStep

_ADVICE = "install a newer pocketvl-runtime, if there is one"


def task_obstacle(manifest: Manifest, name: str) -> str | None:
    """Why a task cannot be run: a noun phrase for "this runtime cannot run ..."; None where it can.

    Args:
        manifest: the bundle's.
        name: of a task that is there.
    """
    task = manifest.tasks[name]
    if not isinstance(task, ContrastiveTask):
        return f"tasks of kind {task.kind!r}"
    kinds = []
    for port in (task.first, task.second):
        component = port.partition(".")[0]
        sources = {each.source for each in manifest.graphs[component].inputs}
        processor = manifest.processors.get(next(iter(sources)) or "") if len(sources) == 1 else None
        if processor is None:
            return f"{component}, whose inputs are not all made by one processor"
        obstacle = processor_obstacle(processor)
        if obstacle is not None:
            return obstacle
        kinds.append(processor.kind)
    if sorted(kinds) != ["image", "tokenizers"]:
        return f"contrastive tasks of {kinds[0]} and {kinds[1]}"
    return None


def processor_obstacle(processor: Processor) -> str | None:
    """Why a processor cannot be run, likewise."""
    match processor:
        case AudioProcessor():
            return "audio"
        case TextProcessor():
            return "prompts" if processor.prompt else None
        case ImageProcessor():
            if processor.orientation is not Orientation.EXIF:
                return f"orientation {processor.orientation.value!r}"
            if processor.alpha is not Alpha.OVER_WHITE:
                return f"alpha {processor.alpha.value!r}"
            return next(filter(None, map(_step_obstacle, processor.steps)), None)


def runnable_tasks(manifest: Manifest) -> dict[str, ContrastiveTask]:
    """The tasks that this runtime can run, by name."""
    return {
        name: task
        for name, task in manifest.tasks.items()
        if isinstance(task, ContrastiveTask) and task_obstacle(manifest, name) is None
    }


def runnable_components(manifest: Manifest) -> frozenset[str]:
    """The components that those tasks need."""
    tasks = runnable_tasks(manifest).values()
    return frozenset(port.partition(".")[0] for task in tasks for port in (task.first, task.second))


def refuse_task(manifest: Manifest, name: str) -> None:
    """Raises BundleError, in one line, for a task that the bundle has not or this runtime cannot run."""
    if name not in manifest.tasks:
        known = ", ".join(sorted(manifest.tasks)) or "none"
        raise BundleError(f"{manifest.model.name} has no task {name!r}; it has {known}")
    obstacle = task_obstacle(manifest, name)
    if obstacle is not None:
        raise BundleError(f"task {name!r}: this runtime cannot run {obstacle}; {_ADVICE}")


def refuse_processor(processor: Processor) -> None:
    """Raises BundleError, in one line, for a processor that this runtime cannot run."""
    obstacle = processor_obstacle(processor)
    if obstacle is not None:
        raise BundleError(f"this runtime cannot run {obstacle}; {_ADVICE}")


def _step_obstacle(step: ImageStep) -> str | None:
    match step:
        case Resize():
            # Pillow adds up where it samples, and so takes other pixels than docs/BUNDLE.md names
            if step.filter is Filter.NEAREST or not step.antialias:
                plain = "" if step.antialias else " without antialias"
                return f"resizing by filter {step.filter.value!r}{plain}"
            if step.mode is ResizeMode.LONGEST_EDGE:
                return "resizing of mode 'longest_edge'"
        case CenterCrop():
            pass
        case _:
            return f"image steps of kind {step.op!r}"
    return None if step.rounding is Rounding.FLOOR else f"rounding {step.rounding.value!r} of {step.op}"
