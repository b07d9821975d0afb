"""The comparison with peers: which rounds count, who is held against whom, what the page says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from bench.peers.client import Served, WorkerError, run_measured
from bench.peers.contenders import METHODS, PEERS, TOWERS, chosen_methods
from bench.peers.figures import fidelity_of, paired_ratio, verdict
from bench.peers.load import LIMIT, OtherLoad, check_before, quiet_rounds
from bench.peers.measuring import run_rounds
from bench.peers.record import (
    EXPORT_FILE,
    MODEL_FILE,
    QUANTIZE_FILE,
    ExportRecord,
    Fidelity,
    Made,
    ModelRecord,
    QuantizeRecord,
    Timed,
    made_file,
    timed_file,
)
from bench.peers.render import write_page
from bench.results.record import write_record
from pocketvl.errors import DataError

ROUNDS = 12
MS = {
    "tflite-int8": 9.0,
    "tflite-int8dyn": 8.0,
    "tflite-fp32": 5.0,
    "onnx-int8": 12.0,
    "openvino-int8": 10.0,
    "litert-int8": 4.0,
    "litert-int8dyn": 11.0,
}
COSINES = {
    "tflite-int8": 0.995,
    "tflite-int8dyn": 0.98,
    "tflite-fp32": 1.0,
    "onnx-int8": 0.996,
    "openvino-int8": 0.99,
    "litert-int8": 0.5,
    "litert-int8dyn": 0.995,
}


def made(name: str, failed: str = "") -> Made:
    """A record of what a method made."""
    cosine = COSINES[name]
    found = None if failed else Fidelity(cosine, cosine - 0.001, cosine + 0.001, cosine - 0.1)
    return Made("a tool 1.0", None if failed else 90_000_000, 8.0, 2_000_000_000, found, failed)


def measured(work: Path, any_load: bool = False) -> Path:
    """Writes what would have been measured of a model, image tower alone, one thread."""
    (work / "model").mkdir(parents=True)
    write_record(work / "model" / MODEL_FILE, ModelRecord("model", "a model", 150, "photographs", 49_408))
    for name in MS:
        path = made_file(work, "model", name, "image")
        path.parent.mkdir(parents=True)
        write_record(path, made(name))
    times = {name: tuple(ms + index for index in range(ROUNDS)) for name, ms in MS.items()}
    busy = (0.1,) * ROUNDS
    timed = Timed("a processor", 1, 3, times, MS, 0.05, busy, 0.0, ROUNDS, False, any_load, {}, {})
    path = timed_file(work, "model", "image", 1)
    path.parent.mkdir()
    write_record(path, timed)
    return work


def test_the_fastest_peer_is_one_whose_answers_hold_and_own_variants_must_be_as_faithful() -> None:
    times = {name: [ms, 2 * ms] for name, ms in MS.items()}
    found = verdict(
        ["tflite-int8", "tflite-int8dyn"], ["openvino-int8", "litert-int8", "litert-int8dyn"], times, COSINES
    )
    assert found is not None
    assert (found.peer, found.own) == ("openvino-int8", "tflite-int8")  # neither .5 nor .98 counts
    assert found.ratio == pytest.approx(0.9)
    assert found.fidelity == (0.995, 0.99)


def test_no_own_variant_is_named_where_none_is_as_faithful() -> None:
    times = {name: [ms] for name, ms in MS.items()}
    found = verdict(["tflite-int8dyn"], ["openvino-int8"], times, COSINES)
    assert found is not None
    assert found.own is None
    assert found.ratio is None


def test_there_is_no_verdict_without_a_peer() -> None:
    assert verdict(["tflite-int8"], ["openvino-int8"], {"tflite-int8": [1.0]}, COSINES) is None


def test_ratios_are_of_the_same_rounds() -> None:
    assert paired_ratio([1.0, 10.0, 3.0], [2.0, 5.0, 4.0]) == 0.75  # of .5, 2 and .75; of medians .75 too
    assert paired_ratio([1.0, 10.0, 100.0], [2.0, 20.0, 25.0]) == 0.5  # medians say .5, means 2.4
    with pytest.raises(DataError, match="2 and 1 rounds cannot be paired"):
        paired_ratio([1.0, 2.0], [1.0])


def test_fidelity_sees_what_all_outputs_share_only_once() -> None:
    chance = np.random.default_rng(0)
    common = 100 * np.ones(16)
    reference = (common + chance.standard_normal((50, 16))).astype(np.float32)
    same = fidelity_of(reference, reference)
    assert [same.median, same.least] == pytest.approx([1.0, 1.0])
    other = (common + chance.standard_normal((50, 16))).astype(np.float32)
    found = fidelity_of(reference, other)
    assert abs(found.median) < 0.3
    assert found.low < found.median < found.high
    other[3] = np.nan
    assert fidelity_of(reference, other).least == -1.0
    with pytest.raises(DataError, match="cannot be compared"):
        fidelity_of(reference, other[:, :4])


def test_rounds_in_which_others_used_the_machine_do_not_count() -> None:
    busy = [0.0] * 10 + [LIMIT, LIMIT + 0.01]
    assert quiet_rounds(busy) == (tuple(range(11)), False)
    assert quiet_rounds([LIMIT + 0.01] * 12) == (tuple(range(12)), True)
    assert quiet_rounds([0.0, 0.0]) == ((0, 1), False)


def test_a_machine_in_use_is_refused_unless_that_is_allowed() -> None:
    check_before(LIMIT, any_load=False)
    check_before(2.0, any_load=True)
    with pytest.raises(DataError, match=r"0\.50 processors busy"):
        check_before(0.5, any_load=False)


def test_other_load_is_what_neither_this_process_nor_workers_used(tmp_path: Path) -> None:
    (tmp_path / "proc/7").mkdir(parents=True)

    def spent(busy: int, worker: int) -> None:
        (tmp_path / "proc/stat").write_text(f"cpu {busy} 0 0 1000 0 0 0 0\n")
        (tmp_path / "proc/7/stat").write_text(f"7 (a worker) S {'0 ' * 10}{worker} 0 " + "0 " * 30)

    spent(0, 0)
    load = OtherLoad([7], tmp_path)
    spent(500_000, 500_000)
    others, workers = load.since()
    assert others < 0.1 * workers
    spent(1_000_000, 500_000)
    others, workers = load.since()
    assert workers == 0
    assert others > 0


def test_methods_are_chosen_by_name_or_by_peer() -> None:
    assert chosen_methods([]) == METHODS
    assert {each.peer for each in chosen_methods(["openvino"])} == {"openvino"}
    assert [each.name for each in chosen_methods(["ort-int8"])] == ["ort-int8"]
    with pytest.raises(ValueError, match="no method or peer tvm"):
        chosen_methods(["tvm"])


def test_every_method_is_of_a_peer_whose_worker_is_there() -> None:
    assert len({each.name for each in METHODS}) == len(METHODS)
    for method in METHODS:
        if not method.is_own:
            worker = Path("bench/peers/workers") / f"{PEERS[method.peer].worker}.py"
            assert worker.exists()
            assert all("==" in each for each in PEERS[method.peer].requirements)


def test_workers_import_nothing_of_pocketvl_but_for_its_own() -> None:
    for path in Path("bench/peers/workers").glob("*.py"):
        if not path.name.startswith("pocketvl"):
            assert "import pocketvl" not in path.read_text()
            assert "from pocketvl" not in path.read_text()


def test_the_page_says_who_is_fastest_and_the_readme_gets_its_line(tmp_path: Path) -> None:
    readme, page = tmp_path / "README.md", tmp_path / "PEERS.md"
    readme.write_text("first\n<!-- peers -->\nold\n<!-- /peers -->\nlast\n")
    write_page(measured(tmp_path / "work"), ["model"], page, readme)
    told = page.read_text()
    assert "| model image | 1 | tflite | tflite-int8 | openvino-int8 | 0.94 | 0.9950 / 0.9900 | yes |" in told
    assert "| model image | 1 | onnx | onnx-int8 | openvino-int8 | 1.13 | 0.9960 / 0.9900 | no |" in told
    assert "in use" not in told
    assert (tmp_path / "peers.png").stat().st_size > 5000
    line = readme.read_text()
    assert line.startswith("first\n<!-- peers -->\nBeside OpenVINO")
    assert line.endswith("<!-- /peers -->\nlast\n")
    assert "old" not in line
    assert "0.94 of the fastest peer's time" in " ".join(line.split())


def test_figures_of_a_machine_in_use_are_marked_and_stay_out_of_the_readme(tmp_path: Path) -> None:
    readme, page = tmp_path / "README.md", tmp_path / "PEERS.md"
    readme.write_text("<!-- peers -->\nold\n<!-- /peers -->\n")
    write_page(measured(tmp_path / "work", any_load=True), ["model"], page, readme)
    assert "**The machine was in use" in page.read_text()
    assert "old" in readme.read_text()


def test_what_failed_stands_on_the_page_in_its_own_words(tmp_path: Path) -> None:
    work, page = measured(tmp_path / "work"), tmp_path / "PEERS.md"
    write_record(made_file(work, "model", "openvino-int8", "image"), made("openvino-int8", "no such op"))
    write_page(work, ["model"], page, tmp_path / "none.md")
    assert "- model image, openvino-int8: `no such op`" in page.read_text()


def test_nothing_is_rendered_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run prepare first"):
        write_page(tmp_path, ["model"], tmp_path / "PEERS.md", tmp_path / "none.md")


def test_times_of_quantizing_and_of_a_whole_export_stand_beside_the_peers(tmp_path: Path) -> None:
    work, page = measured(tmp_path / "work"), tmp_path / "PEERS.md"
    write_record(work / "model" / QUANTIZE_FILE, QuantizeRecord(15.0, 1_000_000_000))
    write_record(work / "model" / EXPORT_FILE, ExportRecord(63.0, 3_000_000_000, False))
    for tower in TOWERS:
        write_record(made_file(work, "model", "openvino-int8", tower), made("openvino-int8"))
    write_page(work, ["model"], page, tmp_path / "none.md")
    text = page.read_text()
    assert "| model | **pocketvl, static int8** | 15 s | \N{EN DASH} | 1.0 GB |" in text
    assert "| model | **pocketvl export** | \N{EN DASH} | 63 s | 3.0 GB |" in text
    assert "| model | openvino-int8 | 16 s |" in text


def doubling(folder: Path) -> Path:
    """A graph of float [1, 3] that doubles its input."""
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", ports[:1], ports[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, folder / "graph.onnx")
    return folder / "graph.onnx"


def served(graph: Path, inputs: Path, log: Path) -> Served:
    """A worker of ONNX Runtime in this test's own Python."""
    module = "bench.peers.workers.onnxruntime_tools"
    return Served([sys.executable, "-m", module, "serve", str(graph), str(inputs), "1", "static"], log, False)


def test_a_worker_serves_a_graph_and_sleeps_between_two_requests(tmp_path: Path) -> None:
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.save(tmp_path / "rows.npy", rows)
    with served(doubling(tmp_path), tmp_path / "rows.npy", tmp_path / "log") as worker:
        worker.wait()
        worker.outputs(tmp_path / "out.npy")
        assert np.array_equal(np.load(tmp_path / "out.npy"), 2 * rows)
        times, busy = run_rounds({"ort": worker}, 4, 3, OtherLoad([worker.pid]))
        assert worker.peak_bytes() > 1_000_000
    assert [len(found) for found in times["ort"]] == [3] * 4
    assert len(busy) == 4
    assert all(ms > 0 for found in times["ort"] for ms in found)


def test_a_worker_that_cannot_open_its_graph_says_why(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((1, 3), np.float32))
    (tmp_path / "graph.onnx").write_bytes(b"no graph")
    with (
        served(tmp_path / "graph.onnx", tmp_path / "rows.npy", tmp_path / "log") as worker,
        pytest.raises(WorkerError, match="InvalidProtobuf"),
    ):
        worker.wait()


def test_a_worker_that_died_is_told_of(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "raise SystemExit(3)"]
    with (
        Served(command, tmp_path / "log", False) as worker,
        pytest.raises(WorkerError, match="ended with 3"),
    ):
        worker.wait()


def test_quantizing_runs_as_a_job_and_its_memory_is_told(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.ones((2, 3), np.float32))
    job = {
        "source": str(doubling(tmp_path)),
        "calibration": str(tmp_path / "rows.npy"),
        "out": str(tmp_path / "out.onnx"),
        "how": "dynamic",
    }
    (tmp_path / "job.json").write_text(json.dumps(job))
    module = "bench.peers.workers.onnxruntime_tools"
    command = [sys.executable, "-m", module, "quantize", str(tmp_path / "job.json"), str(tmp_path / "r.json")]
    seconds, peak = run_measured(command, tmp_path / "log", own=False)
    result = json.loads((tmp_path / "r.json").read_text())
    assert 0 < result["seconds"] < seconds
    assert result["versions"].startswith("onnxruntime 1.")
    assert peak > 10_000_000
    assert (tmp_path / "out.onnx").exists()
    (tmp_path / "job.json").write_text(json.dumps({**job, "source": "missing.onnx"}))
    with pytest.raises(WorkerError, match=r"missing\.onnx"):
        run_measured(command, tmp_path / "log", own=False)
