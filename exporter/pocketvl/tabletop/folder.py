"""Writes tabletop scenes as a dataset folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pocketvl.data.dataset import write_samples
from pocketvl.errors import DataError
from pocketvl.launch import worker_processes
from pocketvl.tabletop.draw import DEFAULT_SIZE, draw_scene
from pocketvl.tabletop.language import canonical, captions, hard_negatives, questions, sample_statement
from pocketvl.tabletop.scene import sample_scene, scene_rng
from pocketvl_runtime.progress import Progress

WORLD_FILE = "tabletop.json"
"""Says how the folder was made."""
SMALLEST_SIZE, LARGEST_SIZE = 32, 1024
_LAYOUT, _PAINT, _WORDS = range(3)
_WORTH_PROCESSES = 1000


def write_tabletop(
    out: Path, seed: int, count: int, size: int = DEFAULT_SIZE, progress: Progress | None = None
) -> None:
    """Write scenes 0 to `count` - 1 of world `seed` into the existing folder `out`.

    Args:
        out: where samples.jsonl and images/ go.
        seed: of the world; scene k of a seed is the same whatever the count.
        count: number of scenes, at least 1.
        size: side of the square pictures in pixels, 32 to 1024.
        progress: called after every scene.

    Raises:
        DataError: count, seed or size is out of range.
    """
    check_tabletop(seed, count, size)
    (out / "images").mkdir()
    digits = max(4, len(str(count - 1)))
    rows = []
    for index, (jpeg, row) in enumerate(_samples(seed, count, size)):
        name = f"images/{index:0{digits}d}.jpg"
        (out / name).write_bytes(jpeg)
        rows.append({"image": name, **row})
        if progress is not None:
            progress(index + 1, count, "painting scenes")
    write_samples(out, rows)
    world = {"seed": seed, "count": count, "size": size}
    (out / WORLD_FILE).write_text(json.dumps(world) + "\n", encoding="utf-8")


def _samples(seed: int, count: int, size: int) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Scenes in order, painted on all processors where that pays."""
    paint = partial(make_sample, seed, size=size)
    if count < _WORTH_PROCESSES:
        yield from map(paint, range(count))
        return
    with worker_processes() as processes:
        yield from processes.imap(paint, range(count), chunksize=50)


def check_tabletop(seed: int, count: int, size: int) -> None:
    """Raise DataError where a world cannot be made so."""
    if seed < 0 or count < 1 or not SMALLEST_SIZE <= size <= LARGEST_SIZE:
        raise DataError(
            f"a tabletop world needs a seed of 0 or more, a count of 1 or more and a size of "
            f"{SMALLEST_SIZE} to {LARGEST_SIZE}, not seed {seed}, count {count}, size {size}"
        )


def make_sample(seed: int, index: int, size: int = DEFAULT_SIZE) -> tuple[bytes, dict[str, Any]]:
    """One scene: its JPEG, and what samples.jsonl says of it beside the image's name."""
    scene = sample_scene(scene_rng(seed, index, _LAYOUT))
    jpeg, seen = draw_scene(scene, scene_rng(seed, index, _PAINT), size)
    rng = scene_rng(seed, index, _WORDS)
    statement = sample_statement(seen, rng)
    false = hard_negatives(statement, seen, rng)
    row: dict[str, Any] = {
        "captions": captions(statement),
        "negatives": [canonical(changed) for _, changed in false],
        "negative_kinds": [kind.value for kind, _ in false],
    }
    if len(seen.things) == 1:
        row["label"] = seen.things[0].look.shape
    row["objects"] = [thing.to_json() for thing in seen.things]
    row["qa"] = questions(seen, rng)
    return jpeg, row
