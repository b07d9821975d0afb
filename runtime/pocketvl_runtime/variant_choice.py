"""Which variants of a bundle can run here, and what is taken where nobody names one."""

from __future__ import annotations

from pocketvl_runtime.backends import can_run, install_advice, is_stand_in
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.cpus import usable_processors
from pocketvl_runtime.errors import BackendError, BundleError, PocketVLError
from pocketvl_runtime.manifest import Engine, Precision, Status

_PREFERRED_PRECISIONS = (Precision.INT8, Precision.FP16, Precision.FP32)
_PREFERRED_ENGINES = (Engine.TFLITE, Engine.ONNX)
_MOST_DEFAULT_THREADS = 4


def default_threads(processors: int | None = None) -> int:
    """How many threads `load` takes when it is not told.

    Args:
        processors: how many can be used; by default those of this process.
    """
    return min(_MOST_DEFAULT_THREADS, usable_processors() if processors is None else processors)


def runs_here(bundle: Bundle, variant: str) -> bool:
    """Whether the engine of a variant is installed, and new enough for all of its graphs.

    Raises:
        BundleError: there is no such variant.
    """
    return all(can_run(graph) for graph in bundle.graphs(variant))


def runnable_variants(bundle: Bundle) -> list[str]:
    """The variants that can run here, in the manifest's order."""
    return [name for name in bundle.manifest.variants if runs_here(bundle, name)]


def default_variant(bundle: Bundle) -> str:
    """What `load` takes when it is not told.

    Raises:
        BundleError: the bundle has no variant at all.
        BackendError: no accepted variant can run here.
    """
    variants = bundle.manifest.variants
    accepted = [name for name in runnable_variants(bundle) if variants[name].status is Status.ACCEPTED]
    if not accepted:
        raise nothing_runs(bundle)
    return min(accepted, key=lambda name: _rank(bundle, name))


def nothing_runs(bundle: Bundle) -> PocketVLError:
    """The error for a bundle of which nothing can be taken without being named, and what to do about it."""
    variants = bundle.manifest.variants
    if not variants:
        return BundleError(f"{bundle.root} holds no variant; export the bundle again")
    accepted = [name for name, spec in variants.items() if spec.status is Status.ACCEPTED]
    graphs = [graph for name in accepted or variants for graph in bundle.graphs(name)]
    missing = dict.fromkeys(install_advice(graph) for graph in graphs if not can_run(graph))
    advice = [f"pip install {' or '.join(missing)}"] if missing else []
    experimental = [
        name for name in runnable_variants(bundle) if variants[name].status is Status.EXPERIMENTAL
    ]
    if experimental:
        advice.append(f"name one of {', '.join(experimental)}, which failed the gate")
    return BackendError(f"no accepted variant of {bundle.root} can run here: {', or '.join(advice)}")


def _rank(bundle: Bundle, name: str) -> tuple[bool, int, int]:
    spec = bundle.manifest.variants[name]
    precision = (*_PREFERRED_PRECISIONS, spec.precision).index(spec.precision)
    stand_in = any(is_stand_in(graph) for graph in bundle.graphs(name))
    return stand_in, precision, _PREFERRED_ENGINES.index(spec.engine)
