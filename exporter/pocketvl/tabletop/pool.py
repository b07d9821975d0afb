"""A pool of tabletop scenes, painted once and kept on disk, from which training draws its batches."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketvl.arrays import open_array
from pocketvl.errors import TrainingError
from pocketvl.launch import worker_processes
from pocketvl.settings import Pixels, Seed, Settings, Size
from pocketvl.tabletop.draw import draw_scene
from pocketvl.tabletop.scene import (
    COLOURS,
    MAX_THINGS,
    PATTERNS,
    SHAPES,
    SIZES,
    Look,
    Scene,
    Thing,
    sample_scene,
    scene_rng,
)
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.manifest import ImageProcessor
from pocketvl_runtime.progress import Progress

VOCABULARIES = (SHAPES, COLOURS, SIZES, PATTERNS)
ROW_WIDTH = 9  # shape, colour, size, pattern (indices), x, y, radius, angle, present
_SHARD = 500

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class PoolSettings(Settings):
    """Which scenes a pool holds: scenes 0 to `count` - 1 of world `seed`, painted at `paint_size` pixels."""

    seed: Seed
    count: Size
    paint_size: Pixels = 128


@dataclass(frozen=True)
class ScenePool:
    """Painted scenes, memory-mapped.

    Attributes:
        images: uint8 [N, H, W, 3], as the runtime's preprocessing makes them.
        rows: float32 [N, 5, 9], what stands in each scene; `scene_of` turns one back into a Scene.
    """

    images: Bytes
    rows: Floats


def open_pool(
    folder: Path,
    settings: PoolSettings,
    spec: ImageProcessor,
    progress: Progress | None = None,
    workers: int | None = None,
) -> ScenePool:
    """Open the pool in `folder`, painting what is missing; an interrupted painting goes on where it stopped.

    Args:
        folder: where it is kept.
        settings: which scenes.
        spec: how pictures become pixels.
        progress: called after every shard.
        workers: processes that paint; as many as there are processors where nothing is said.

    Raises:
        TrainingError: the folder holds a pool of other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {**asdict(settings), "height": spec.height, "width": spec.width, "shard": _SHARD}
    label = folder / "pool.json"
    if not label.exists():
        label.write_text(json.dumps(wanted))
    if json.loads(label.read_text()) != wanted:
        raise TrainingError(f"{folder} holds a pool of other scenes: delete it or choose another folder")
    images = open_array(folder / "images.npy", np.uint8, (settings.count, spec.height, spec.width, 3))
    rows = open_array(folder / "rows.npy", np.float32, (settings.count, MAX_THINGS, ROW_WIDTH))
    starts = range(0, settings.count, _SHARD)
    done = open_array(folder / "done.npy", np.uint8, (len(starts),))
    missing = [k for k in range(len(starts)) if not done[k]]
    if missing:
        paint = partial(_paint_shard, settings, spec)
        with worker_processes(workers) as processes:
            for shard, pixels, things in processes.imap_unordered(paint, missing):
                images[starts[shard] : starts[shard] + len(pixels)] = pixels
                rows[starts[shard] : starts[shard] + len(things)] = things
                images.flush(), rows.flush()
                done[shard] = 1
                if progress is not None:
                    progress(int(done.sum()) * _SHARD, settings.count, "painting scenes")
        done.flush()
    return ScenePool(images, rows)


def scene_of(row: Floats) -> Scene:
    """The scene that float32 [5, 9] stands for."""
    things = []
    for shape, colour, size, pattern, x, y, radius, angle, present in row.tolist():
        if present:
            look = Look(SHAPES[int(shape)], COLOURS[int(colour)], SIZES[int(size)], PATTERNS[int(pattern)])
            things.append(Thing(look, x, y, radius, angle))
    return Scene(tuple(things))


def row_of(scene: Scene) -> Floats:
    """The scene as float32 [5, 9]."""
    row = np.zeros((MAX_THINGS, ROW_WIDTH), np.float32)
    for k, thing in enumerate(scene.things):
        indices = [values.index(v) for values, v in zip(VOCABULARIES, thing.look, strict=True)]
        row[k] = (*indices, thing.x, thing.y, thing.radius, thing.angle, 1.0)
    return row


def _paint_shard(settings: PoolSettings, spec: ImageProcessor, shard: int) -> tuple[int, Bytes, Floats]:
    pixels, rows = [], []
    for index in range(shard * _SHARD, min((shard + 1) * _SHARD, settings.count)):
        scene = sample_scene(scene_rng(settings.seed, index))
        jpeg, seen = draw_scene(scene, scene_rng(settings.seed, index, 1), settings.paint_size)
        pixels.append(preprocess(open_image(jpeg), spec))
        rows.append(row_of(seen))
    return shard, np.stack(pixels), np.stack(rows)
