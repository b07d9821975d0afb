"""The golden pack's first inputs as raw bytes, and which graphs take them: for programs without processors.

Beside the bundle `NAME` a device gets a folder `NAME.inputs`. Its file `plan` has one thing a line, parts
separated by tabs, so that a program in C needs no JSON:

    pocketvl-bench-plan 2
    bundle  NAME OF THE MODEL  SHA-256 OF manifest.json
    graph   VARIANT  STAGE  COMPONENT  FILE, RELATIVE TO THE BUNDLE  SIGNATURE (empty: the only one)
    peak    NAME  FILE IN THIS FOLDER  MULTIPLY-ADDS        (a graph: what the engine can do at best)
    input   NAME  FILE IN THIS FOLDER                       (of the graph above it)
    output  NAME  FILE IN THIS FOLDER, written after the first answer, float32      (likewise)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketvl_runtime.audio import load_features
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.golden import VariantTolerance
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.manifest import (
    AudioProcessor,
    DType,
    Engine,
    ImageProcessor,
    LabelsTask,
    MatchTask,
    PortKind,
    Precision,
    TextProcessor,
    component_of,
)
from pocketvl_runtime.obstacles import is_embed_only, outputs_of, runnable_tasks
from pocketvl_runtime.peaks import MULTIPLY_ADDS, linear_graph, packed_graph, peak_name
from pocketvl_runtime.selftest import wrong_array
from pocketvl_runtime.text import Tokenizer

PLAN_FILE = "plan"
PLAN_HEAD = "pocketvl-bench-plan 2"
OUTPUT_SUFFIX = ".f32"


def write_prepared_inputs(bundle: Bundle, variants: Sequence[str], folder: Path) -> None:
    """Writes the plan and its inputs.

    Args:
        bundle: opened.
        variants: whose graphs the plan names; all of them TFLite's.
        folder: made if it is not there.

    Raises:
        BundleError: the bundle has no task that can be run, or no picture or sound or text to ask with.
    """
    stages = _stages(bundle)
    arrays = _arrays(bundle)
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[tuple[str, PortKind], str] = {}
    for (processor, kind), array in arrays.items():
        files[processor, kind] = f"{len(files)}.{kind.value}"
        (folder / files[processor, kind]).write_bytes(array.tobytes())
    lines = [PLAN_HEAD, f"bundle\t{bundle.manifest.model.name}\t{bundle.manifest_file_sha256()}"]
    for variant in variants:
        stored = bundle.variant(variant).files
        for component, stage in stages.items():
            if component not in stored:
                continue
            file, signature = stored[component].file, stored[component].signature or ""
            lines.append(f"graph\t{variant}\t{stage}\t{component}\t{file}\t{signature}")
            lines += [
                f"output\t{port.name}\t{_output_file(variant, component, port.name)}"
                for port in bundle.manifest.graphs[component].outputs
                if port.dtype is DType.FLOAT32
            ]
            lines += [
                f"input\t{port.name}\t{files[port.source or '', port.kind]}"
                for port in bundle.manifest.graphs[component].inputs
            ]
    lines += write_peaks(folder)
    (folder / PLAN_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def wrong_outputs(bundle: Bundle, variant: str, folder: Path) -> list[str]:
    """What is wrong with a variant's outputs of the prepared inputs, by the golden pack and its tolerances.

    Args:
        bundle: opened.
        variant: which.
        folder: with the files that the plan names; outputs that are not there are not checked.

    Returns:
        One line for each output that is further from torch's than the golden pack allows.
    """
    golden, lines = bundle.golden(), []
    limits = golden.tolerance.get(variant, VariantTolerance({}, {})).ports
    for port, rows in golden.outputs.items():
        component, _, name = port.partition(".")
        file = folder / _output_file(variant, component, name)
        row = next((row for row in rows if not any(row.inputs.values())), None)  # of the first inputs
        if row is None or port not in limits or not file.is_file():
            continue
        got = np.frombuffer(file.read_bytes(), np.float32).astype(np.float64)
        expected = np.asarray(row.values, np.float64)
        wrong = f"{got.size} numbers, expected {expected.size}" if got.size != expected.size else None
        wrong = wrong or wrong_array(got, expected, limits[port])
        if wrong:
            lines.append(f"{port} is wrong on this device: {wrong}")
    return lines


def write_peaks(folder: Path) -> Iterator[str]:
    """Writes TFLite's graphs that show what the machine can do at best; gives their lines of the plan."""
    for precision in (Precision.FP32, Precision.INT8):
        graph = linear_graph(Engine.TFLITE, precision)
        (given,) = graph.inputs
        file = Path(graph.graph_id).name
        (folder / file).write_bytes(packed_graph(graph))
        (folder / f"{file}.ones").write_bytes(np.ones(given.shape, given.dtype).tobytes())
        yield f"peak\t{peak_name(graph)}\t{file}\t{MULTIPLY_ADDS}"
        yield f"input\t{given.name}\t{file}.ones"


def _output_file(variant: str, component: str, output: str) -> str:
    return f"{variant}.{component}.{output}{OUTPUT_SUFFIX}"


def _stages(bundle: Bundle) -> dict[str, str]:
    """The components of one answer, in the order in which they run, with the names of their stages."""
    runnable = runnable_tasks(bundle.manifest)
    tasks = {name: task for name, task in runnable.items() if not isinstance(task, MatchTask)}
    if not tasks:
        raise BundleError(f"{bundle.root} has no task that can be timed on a phone; export it again")
    task = tasks.get("match") or next(iter(tasks.values()))
    chosen = tuple(tasks.values()) if is_embed_only(bundle.manifest) else (task,)
    components = [component_of(port) for each in chosen for port in outputs_of(each)]
    if isinstance(task, LabelsTask):
        return dict.fromkeys(components, "fusion")
    return {component: _encoder(bundle, component) for component in components}


def _encoder(bundle: Bundle, component: str) -> str:
    source = bundle.manifest.graphs[component].inputs[0].source or ""
    names = {"image": "image", "log_mel": "audio", "tokenizers": "text"}
    return names[bundle.manifest.processors[source].kind]


def _arrays(bundle: Bundle) -> dict[tuple[str, PortKind], npt.NDArray[np.generic]]:
    """What the processors make of the golden pack's first picture or sound and first text, a batch of one."""
    golden = bundle.golden()
    if any(not golden.inputs.get(name) for name in bundle.manifest.processors):
        raise BundleError(f"{bundle.root} has no golden picture or text to time with; export it again")
    arrays: dict[tuple[str, PortKind], npt.NDArray[np.generic]] = {}
    for name, processor in bundle.manifest.processors.items():
        if isinstance(processor, ImageProcessor):
            picture = open_image(bundle.file(golden.images[0].file))
            arrays[name, PortKind.PIXELS] = preprocess(picture, processor)[None]
        elif isinstance(processor, AudioProcessor):
            arrays[name, PortKind.AUDIO_FEATURES] = load_features(
                bundle.file(golden.sounds[0].file), processor
            )
        elif isinstance(processor, TextProcessor):
            encoding = Tokenizer(bundle.read(processor.file), processor).encode([golden.texts[0].text])
            arrays[name, PortKind.TOKEN_IDS] = encoding.ids[:1]
            arrays[name, PortKind.ATTENTION_MASK] = encoding.mask[:1]
    return arrays
