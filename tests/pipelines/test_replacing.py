"""What a command may replace: only what it wrote itself, and nothing that somebody put there or changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pocketvl.cli import cli
from pocketvl.errors import StageError
from pocketvl.families.folders.files import CARD_FILE
from pocketvl.pipelines.export import written_bundle
from pocketvl.stage import RECORD_FILE, publish, read_record, write_record
from pocketvl.stage.record import check_owned
from pocketvl.tabletop.folder import write_tabletop
from tests.families.tiny import make_tiny_clip
from tests.runtime.bundles import write_bundle

COMMANDS = ("export", "search", "compress", "train", "data tabletop")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, a dataset and a compression recipe."""
    root = tmp_path_factory.mktemp("inputs")
    make_tiny_clip(root / "checkpoint")
    (root / "data").mkdir()
    write_tabletop(root / "data", 21, 12, size=40)
    (root / "recipe.toml").write_text('[[steps]]\nkind = "sparsify"\nsparsity = 0.5\n')
    return root


def words(command: str, inputs: Path, out: Path, cache: Path) -> list[str]:
    """The command line that writes to `out`."""
    checkpoint, data, last = inputs / "checkpoint", inputs / "data", ["-o", out, "--cache", cache]
    calibrated = ["--calibration", data, *last]
    said: dict[str, list[object]] = {
        "export": ["export", checkpoint, *calibrated],
        "search": [
            "search",
            checkpoint,
            "--budget",
            "size=1MB",
            "--data",
            data,
            "--calibration",
            data,
            *last,
        ],
        "compress": ["compress", checkpoint, "--recipe", inputs / "recipe.toml", "--data", data, *last],
        "train": ["train", "tabletop-clip", "-o", out, "--work", cache / "work"],
        "data tabletop": ["data", "tabletop", "--seed", 1, "--count", 2, "--size", 32, *last],
    }
    return [str(word) for word in said[command]]


def run(command: str, inputs: Path, out: Path, cache: Path) -> None:
    cli.main(words(command, inputs, out, cache), standalone_mode=False)


@pytest.fixture(scope="module")
def earlier(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By command, a folder as an earlier run of it left it."""
    root, made = tmp_path_factory.mktemp("earlier"), {}
    for command in ("compress", "data tabletop"):
        made[command] = root / command.replace(" ", "-")
        run(command, inputs, made[command], root / "cache")
    made["export"] = made["search"] = write_bundle(root / "bundle")
    (made["export"] / "report.json").write_text("{}")
    made["train"] = make_tiny_clip(root / "train")
    write_record(made["train"])
    return made


def add_file(folder: Path) -> str:
    (folder / "notes.txt").write_text("mine")
    return "notes.txt"


def add_deep_file(folder: Path) -> str:
    (folder / "more" / "deep").mkdir(parents=True)
    (folder / "more" / "deep" / "notes.txt").write_text("mine")
    return "more/deep/notes.txt"


def add_link_to_folder(folder: Path) -> str:
    (folder.parent / "elsewhere").mkdir(exist_ok=True)
    (folder / "linked").symlink_to(folder.parent / "elsewhere")
    return "linked"


def add_dead_link(folder: Path) -> str:
    (folder / "dead").symlink_to("nowhere")
    return "dead"


def add_folder(folder: Path) -> str:
    (folder / "for-later").mkdir()
    return "for-later"


def add_hidden_file(folder: Path) -> str:
    (folder / ".env").write_text("mine")
    return ".env"


def change_file(folder: Path) -> str:
    files = [p for p in folder.rglob("*") if p.suffix in (".json", ".jsonl") and p.name != RECORD_FILE]
    measured = ("manifest.json", "report.json", "report.html")
    path = next(p for p in sorted(files) if p.name not in measured)
    path.write_bytes(path.read_bytes() + b"\n")
    return path.relative_to(folder).as_posix()


def tree(folder: Path) -> dict[str, object]:
    return {
        str(path.relative_to(folder)): path.readlink()
        if path.is_symlink()
        else path.is_file() and path.read_bytes()
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    "change",
    [add_file, add_deep_file, add_link_to_folder, add_dead_link, add_folder, add_hidden_file, change_file],
)
def test_a_command_refuses_to_lose_what_it_did_not_write(
    command: str, change: Callable[[Path], str], inputs: Path, earlier: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(earlier[command], out)
    name = change(out)
    before = tree(out)
    with pytest.raises(StageError) as refused:
        run(command, inputs, out, tmp_path / "cache")
    assert name in str(refused.value)
    assert tree(out) == before
    assert not (tmp_path / "cache").exists(), "it was refused before anything ran"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_no_command_wrote_is_refused(command: str, inputs: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "config.json").write_text('{"mine": true}')
    (home / "samples.jsonl").write_text("")
    with pytest.raises(StageError, match=r"did not write and would lose \(config.json, samples.jsonl\)"):
        run(command, inputs, home, tmp_path / "cache")
    assert sorted(tree(home)) == ["config.json", "samples.jsonl"]


@pytest.mark.parametrize("command", ["compress", "data tabletop"])
def test_what_a_command_wrote_is_replaced(
    command: str, inputs: Path, earlier: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(earlier[command], out)
    other = tmp_path / "inputs"
    shutil.copytree(inputs, other)
    (other / "recipe.toml").write_text('[[steps]]\nkind = "sparsify"\nsparsity = 0.6\n')
    changed = words(command, other, out, tmp_path / "cache")
    cli.main([{"--seed": "--seed=2"}.get(w, w) for w in changed if w != "1"], standalone_mode=False)
    assert tree(out) != tree(earlier[command])
    check_owned(out, read_record)


def test_the_card_of_a_checkpoint_stays(inputs: Path, earlier: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(earlier["compress"], out)
    (out / CARD_FILE).write_text("mine")
    (tmp_path / "recipe.toml").write_text('[[steps]]\nkind = "sparsify"\nsparsity = 0.6\n')
    for name in ("checkpoint", "data"):
        (tmp_path / name).symlink_to(inputs / name)
    for _ in range(2):
        run("compress", tmp_path, out, tmp_path / "cache")
        assert (out / CARD_FILE).read_text() == "mine"
    assert (out / "model.safetensors").read_bytes() != (
        earlier["compress"] / "model.safetensors"
    ).read_bytes()


def test_what_the_hub_keeps_as_links_counts_as_what_was_written(
    earlier: dict[str, Path], tmp_path: Path
) -> None:
    stored = tmp_path / "stored"
    shutil.copytree(earlier["compress"], stored)
    (tmp_path / "out").mkdir()
    for path in stored.iterdir():
        (tmp_path / "out" / path.name).symlink_to(path)
    check_owned(tmp_path / "out", read_record)


@pytest.mark.parametrize("content", ["{}", json.dumps({"manifest_version": 3, "name": "an extension"}), "?"])
def test_any_other_manifest_is_no_bundle(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    (tmp_path / "background.js").write_text("")
    assert written_bundle(tmp_path) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": 3}', '{"files": {"notes.txt": {}}}', "\xff"])
def test_a_damaged_record_is_none_that_says_notes_may_go(tmp_path: Path, content: str) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / RECORD_FILE).write_text(content)
    with pytest.raises(StageError, match=r"notes.txt"):
        check_owned(tmp_path, read_record)


def test_what_a_killed_publishing_left_is_removed_even_if_nothing_changed(tmp_path: Path) -> None:
    result = write_bundle(tmp_path / "result")
    publish(result, tmp_path / "out", written_bundle)
    left = tmp_path / ".out.new-abc"
    left.mkdir()
    (tmp_path / ".out.new-abc.lock").touch()
    publish(result, tmp_path / "out", written_bundle)
    assert not left.exists()
