"""What a bundle can say and this runtime cannot run yet, in words for whoever asks for it."""

from __future__ import annotations

from typing import TypeAlias, TypeVar

from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.manifest import (
    Alpha,
    AudioProcessor,
    CenterCrop,
    ContrastiveTask,
    EmbedTask,
    Filter,
    ImageProcessor,
    LabelsTask,
    Manifest,
    MatchTask,
    Orientation,
    Processor,
    Resize,
    ResizeMode,
    Rounding,
    TextProcessor,
    component_of,
)
from pocketvl_runtime.manifest.processors import ImageStep
from pocketvl_runtime.wav import MAX_RATE, MIN_RATE

RunnableTask: TypeAlias = ContrastiveTask | LabelsTask | EmbedTask | MatchTask
_Task = TypeVar("_Task", ContrastiveTask, LabelsTask, EmbedTask, MatchTask)
_ADVICE = "install a newer pocketvl-runtime, if there is one"
_IMAGE_AND_TEXT = ["image", "tokenizers"]
_SOUND_AND_TEXT = ["log_mel", "tokenizers"]
_MOST_FFT, _MOST_SAMPLES = 2**15, 2**24
_MOST_TRANSFORMED = 2**28  # frames x n_fft: some seconds


def task_obstacle(manifest: Manifest, name: str) -> str | None:
    """Why a task cannot be run: a noun phrase for "this runtime cannot run ..."; None where it can.

    Args:
        manifest: the bundle's.
        name: of a task that is there.
    """
    match manifest.tasks[name]:
        case ContrastiveTask() as task:
            kinds = []
            for port in (task.first, task.second):
                processors, obstacle = _processors_of(manifest, port)
                if obstacle is None and len(processors) > 1:
                    obstacle = f"{component_of(port)}, whose inputs are not all made by one processor"
                if obstacle is not None:
                    return obstacle
                kinds += [each.kind for each in processors]
            known = sorted(kinds) in (_IMAGE_AND_TEXT, _SOUND_AND_TEXT)
            return None if known else f"contrastive tasks of {' and '.join(kinds)}"
        case LabelsTask() as task:
            processors, obstacle = _processors_of(manifest, task.logits)
            kinds = sorted(each.kind for each in processors)
            if obstacle is None and kinds != _IMAGE_AND_TEXT:
                obstacle = f"labels tasks of {' and '.join(kinds)}"
            return obstacle
        case EmbedTask() as task:
            processors, obstacle = _processors_of(manifest, task.embedding)
            if obstacle is None and len(processors) != 1:
                obstacle = f"embed tasks of {' and '.join(each.kind for each in processors) or 'nothing'}"
            return obstacle
        case MatchTask() as task:
            return _match_obstacle(manifest, component_of(task.logits))
        case task:
            return f"tasks of kind {task.kind!r}"


def _match_obstacle(manifest: Manifest, fusion: str) -> str | None:
    """Why a component that reads a picture or sound and a text together cannot be run.

    Texts go into it themselves; of pictures or sounds it may read what one other component makes of them.
    """
    before = components_before(manifest, fusion)
    own, through = _sources(manifest, fusion), [each for name in before for each in _sources(manifest, name)]
    found = {each: manifest.processors.get(each) for each in (*through, *own) if "." not in each}
    shown = all(isinstance(found.get(each), ImageProcessor | AudioProcessor) for each in through)
    if len(before) > 1 or not shown or None in found.values():
        return (
            f"{fusion}, whose inputs are not all made by processors, or by one component that sees or hears"
        )
    kinds = sorted(each.kind for each in found.values() if each is not None)
    if kinds not in (_IMAGE_AND_TEXT, _SOUND_AND_TEXT):
        return f"match tasks of {' and '.join(kinds)}"
    return next(filter(None, (processor_obstacle(each) for each in found.values() if each)), None)


def components_before(manifest: Manifest, component: str) -> tuple[str, ...]:
    """The components that a component reads from, each once."""
    return tuple(dict.fromkeys(component_of(e) for e in _sources(manifest, component) if "." in e))


def processors_before(manifest: Manifest, component: str) -> frozenset[str]:
    """The processors that make a component's inputs, or those of the components that it reads from."""
    sources = {each for name in chain_of(manifest, component) for each in _sources(manifest, name)}
    return frozenset(sources & set(manifest.processors))


def chain_of(manifest: Manifest, component: str) -> tuple[str, ...]:
    """The components that give a component's outputs, in the order in which they are run."""
    return (*components_before(manifest, component), component)


def _sources(manifest: Manifest, component: str) -> tuple[str, ...]:
    """What fills a component's inputs, each once; "" where the task says what stands there."""
    return tuple(dict.fromkeys(each.source or "" for each in manifest.graphs[component].inputs))


def _processors_of(manifest: Manifest, port: str) -> tuple[list[Processor], str | None]:
    """The processors that make the inputs of a port's component, and why that cannot be run."""
    component = component_of(port)
    sources = _sources(manifest, component)
    processors = [manifest.processors[source] for source in sources if source in manifest.processors]
    if len(processors) < len(sources):
        return [], f"{component}, whose inputs are not all made by processors"
    return processors, next(filter(None, map(processor_obstacle, processors)), None)


def processor_obstacle(processor: Processor) -> str | None:
    """Why a processor cannot be run, likewise."""
    match processor:
        case AudioProcessor():
            return _audio_obstacle(processor)
        case TextProcessor():
            return "prompts" if processor.prompt else None
        case ImageProcessor():
            if processor.orientation is not Orientation.EXIF:
                return f"orientation {processor.orientation.value!r}"
            if processor.alpha is not Alpha.OVER_WHITE:
                return f"alpha {processor.alpha.value!r}"
            return next(filter(None, map(_step_obstacle, processor.steps)), None)


def runnable_tasks(manifest: Manifest) -> dict[str, RunnableTask]:
    """The tasks that this runtime can run, by name."""
    return {
        name: task
        for name, task in manifest.tasks.items()
        if isinstance(task, RunnableTask) and task_obstacle(manifest, name) is None
    }


def runnable_components(manifest: Manifest) -> tuple[str, ...]:
    """The components that those tasks need, each once; what one reads from comes before it."""
    ports = (port for task in runnable_tasks(manifest).values() for port in outputs_of(task))
    needed = (name for port in ports for name in chain_of(manifest, component_of(port)))
    return tuple(dict.fromkeys(needed))


def outputs_of(task: RunnableTask) -> tuple[str, ...]:
    """The outputs that a task's answers are made of, "component.port"."""
    match task:
        case LabelsTask() | MatchTask():
            return (task.logits,)
        case EmbedTask():
            return (task.embedding,)
        case ContrastiveTask():
            return (task.first, task.second)


def is_embed_only(manifest: Manifest) -> bool:
    """Whether all that this runtime can run of a bundle is encoders by themselves."""
    tasks = runnable_tasks(manifest).values()
    return bool(tasks) and all(isinstance(task, EmbedTask) for task in tasks)


def refuse_task(manifest: Manifest, name: str) -> None:
    """Raises BundleError, in one line, for a task that the bundle has not or this runtime cannot run."""
    if name not in manifest.tasks:
        known = ", ".join(sorted(manifest.tasks)) or "none"
        raise BundleError(f"{manifest.model.name} has no task {name!r}; it has {known}")
    obstacle = task_obstacle(manifest, name)
    if obstacle is not None:
        raise BundleError(f"task {name!r}: this runtime cannot run {obstacle}; {_ADVICE}")


def task_named(manifest: Manifest, name: str, kind: type[_Task]) -> _Task:
    """The task of a name.

    Raises:
        BundleError: the bundle has none of that name and kind, or this runtime cannot run it.
    """
    refuse_task(manifest, name)
    task = manifest.tasks[name]
    if not isinstance(task, kind):
        raise BundleError(f"task {name!r} is of kind {task.kind!r}, not {kind.kind!r}; it cannot be asked so")
    return task


def refuse_processor(processor: Processor) -> None:
    """Raises BundleError, in one line, for a processor that this runtime cannot run."""
    obstacle = processor_obstacle(processor)
    if obstacle is not None:
        raise BundleError(f"this runtime cannot run {obstacle}; {_ADVICE}")


def _audio_obstacle(processor: AudioProcessor) -> str | None:
    """What no spectrogram is made of, or one so large that a bundle could fill the memory with it."""
    frames = processor.samples // processor.hop + 1
    if processor.n_fft % 2 or not 2 <= processor.n_fft <= _MOST_FFT:
        return f"an n_fft of {processor.n_fft} (even numbers of 2 to {_MOST_FFT})"
    if not processor.n_fft // 2 < processor.samples <= _MOST_SAMPLES:
        return f"sounds of {processor.samples} samples (at most {_MOST_SAMPLES}, and more than n_fft / 2)"
    if processor.mels > processor.n_fft // 2 or frames * processor.n_fft > _MOST_TRANSFORMED:
        return f"spectrograms of {frames} x {processor.mels} by an n_fft of {processor.n_fft}"
    if not 0 <= processor.low_hz < processor.high_hz <= processor.rate / 2:
        return f"mel filters from {processor.low_hz} to {processor.high_hz} Hz at {processor.rate} Hz"
    if not MIN_RATE <= processor.rate <= MAX_RATE:
        return f"a rate of {processor.rate} Hz ({MIN_RATE} to {MAX_RATE})"
    return None


def _step_obstacle(step: ImageStep) -> str | None:
    match step:
        case Resize():
            # Pillow adds up where it samples, and so takes other pixels than docs/BUNDLE.md names
            if step.filter is Filter.NEAREST or not step.antialias:
                plain = "" if step.antialias else " without antialias"
                return f"resizing by filter {step.filter.value!r}{plain}"
            if step.mode is ResizeMode.LONGEST_EDGE:
                return "resizing of mode 'longest_edge'"
            if step.rounding is not Rounding.FLOOR:
                return f"rounding {step.rounding.value!r} of {step.op}"
        case CenterCrop():
            pass
        case _:
            return f"image steps of kind {step.op!r}"
    return None
