"""Are the bench's figures those of the engines themselves? Times both in turns, and compares them.

    python -m bench.profile_check BUNDLE [--runs 60] [--threads 1,2]

After every round of the bench each graph runs once through its engine's own API, without pocketvl's code.
Compared are the sums over a variant's graphs; the bench's stages hold pocketvl's code around the engine, too.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

LIMIT = 0.1


def onnx(path: Path, threads: int) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")  # or it slows down what comes next
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    types = {"tensor(uint8)": np.uint8, "tensor(int32)": np.int32}
    feed = {each.name: np.ones(each.shape, types[each.type]) for each in session.get_inputs()}
    return lambda: session.run(None, feed)


def tflite(path: Path, threads: int) -> Callable[[], object]:
    from ai_edge_litert.interpreter import Interpreter

    engine = Interpreter(str(path), num_threads=threads)
    engine.allocate_tensors()
    feed = [(each["index"], np.ones(each["shape"], each["dtype"])) for each in engine.get_input_details()]
    outputs = [each["index"] for each in engine.get_output_details()]

    def run() -> object:
        for index, value in feed:
            engine.set_tensor(index, value)
        engine.invoke()
        return [engine.get_tensor(index) for index in outputs]

    return run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--threads", type=lambda text: [int(n) for n in text.split(",")], default=[1, 2])
    chosen = parser.parse_args()
    variants = json.loads((chosen.bundle / "manifest.json").read_text())["variants"]
    engines = {"onnx": onnx, "tflite": tflite}
    graphs = {
        (name, threads): {
            component.removesuffix("_encoder"): engines[variant["engine"]](
                chosen.bundle / each["file"], threads
            )
            for component, each in variant["files"].items()
        }
        for name, variant in variants.items()
        for threads in chosen.threads
    }
    raw_ms: dict[tuple[str, int], list[float]] = {key: [] for key in graphs}

    def run_all(*_: object) -> None:
        for key in random.sample(list(graphs), len(graphs)):
            begin = time.perf_counter()
            for run in graphs[key].values():
                run()
            raw_ms[key].append(1e3 * (time.perf_counter() - begin))

    from pocketvl_runtime.bench import bench
    from pocketvl_runtime.bundle import Bundle

    result = bench(
        Bundle.open(chosen.bundle),
        list(variants),
        chosen.threads,
        chosen.runs,
        progress=run_all,
        keep_samples=True,
    )
    worst = 0.0
    print("variant       threads   engine p10, median   bench p10, median   ratios      difference of p10")
    for (name, threads), values in sorted(raw_ms.items()):
        stages = result.variants[name].timing(threads).stages
        benched = np.sum([stages[component].samples or () for component in graphs[name, threads]], axis=0)
        raw = np.percentile(values[1:], (10, 50))  # the bench does not count its first round either
        own = np.percentile(benched, (10, 50))
        worst = max(worst, abs(own[1] / raw[1] - 1))
        print(
            f"{name:<13} {threads:>7} {raw[0]:>12.3f} {raw[1]:>7.3f} {own[0]:>11.3f} {own[1]:>7.3f} "
            f"  {own[0] / raw[0]:.3f} {own[1] / raw[1]:.3f} {1e3 * (own[0] - raw[0]):>9.0f} us"
        )
    for doubt in result.conditions.warnings if result.conditions else ():
        print("doubtful:", doubt)
    print(f"medians differ by at most {worst:.1%}; {LIMIT:.0%} are allowed")
    sys.exit(bool(worst > LIMIT))


if __name__ == "__main__":
    main()
