"""How long the Android core takes from a decoded picture to pixels on a desktop JVM, and the Python runtime.

    mvn -q -f android_demo test-compile
    python -m bench.android_core [--runs 30]

Both take turns, picture by picture, in one run, and their pixels must be equal. The JVM starts from ARGB, to
which Android decodes; the runtime from Pillow's RGB.
"""

from __future__ import annotations

import statistics
import subprocess
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import click
import numpy as np
from PIL import Image

from bench.timing import machine
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.manifest import Filter, ImageProcessor, ResizeMode
from tests.android.picture_cases import clip, stretched, waves

_CORE = Path("android_demo/core/target")
_MAIN = "dev.pocketvl.core.image.ImageProcessorBenchmark"
_ORIENTATION, _SEED, _WARMUP = 0x0112, 7, 10


@dataclass(frozen=True)
class Task:
    """A picture, and the size it is brought to: the shorter edge and the middle, or both edges."""

    width: int
    height: int
    orientation: int
    mode: ResizeMode
    size: int
    filter: Filter

    def line(self) -> str:
        """As the benchmark of the JVM reads it."""
        return f"{self.width} {self.height} {self.orientation} {_SEED} {self.mode} {self.size} {self.filter}"

    def processor(self) -> ImageProcessor:
        """As the runtime has it."""
        if self.mode is ResizeMode.EXACT:
            return stretched(self.size, self.size, self.filter)
        return clip(self.size, self.filter)

    def image(self) -> Image.Image:
        """RGB, with its orientation."""
        argb = waves(self.width, self.height, _SEED, opaque=True)
        image = Image.fromarray(np.stack([argb >> shift & 255 for shift in (16, 8, 0)], -1).astype(np.uint8))
        image.getexif()[_ORIENTATION] = self.orientation
        return image


_SHORTEST, _EXACT = ResizeMode.SHORTEST_EDGE, ResizeMode.EXACT
TASKS = (
    Task(640, 480, 1, _SHORTEST, 224, Filter.BICUBIC),
    Task(4000, 3000, 1, _SHORTEST, 224, Filter.BICUBIC),
    Task(4000, 3000, 6, _SHORTEST, 224, Filter.BICUBIC),
    Task(4000, 3000, 1, _EXACT, 224, Filter.BILINEAR),
    Task(4000, 3000, 1, _EXACT, 384, Filter.BICUBIC),
)


@dataclass(frozen=True)
class Run:
    """One task done: milliseconds by the clock, CPU time of the thread that works, and the pixels' CRC-32."""

    ms: float
    cpu_ms: float
    checksum: int


class Jvm:
    """The benchmark's process, which does one task at a time when told to."""

    def __init__(self, tasks: tuple[Task, ...]) -> None:
        """Starts it and hands the tasks over."""
        path = ":".join(str(_CORE / each) for each in ("classes", "test-classes"))
        command = ["java", "-XX:+UseSerialGC", "-Xmx1g", "-cp", path, _MAIN]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for task in tasks:
            self._ask(task.line())

    def run(self, number: int) -> Run:
        """Does one task."""
        nanoseconds, cpu_nanoseconds, checksum = self._ask(str(number)).split()
        return Run(int(nanoseconds) / 1e6, int(cpu_nanoseconds) / 1e6, int(checksum))

    def close(self) -> None:
        """Ends it."""
        _stream(self._process.stdin).close()
        self._process.wait()

    def _ask(self, line: str) -> str:
        print(line, file=_stream(self._process.stdin), flush=True)
        answer = _stream(self._process.stdout).readline()
        if not answer:
            raise click.ClickException("the JVM ended; run `mvn -f android_demo test-compile` first")
        return answer


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def _python(image: Image.Image, task: Task) -> Run:
    """Likewise; a picture that lies upright is not copied, for a decoder's would not be."""
    begin, cpu_begin = time.perf_counter(), time.thread_time()
    upright = image if task.orientation == 1 else open_image(image)
    pixels = preprocess(upright, task.processor())
    ms, cpu_ms = 1e3 * (time.perf_counter() - begin), 1e3 * (time.thread_time() - cpu_begin)
    return Run(ms, cpu_ms, zlib.crc32(pixels.tobytes()))


@click.command()
@click.option("--runs", default=30, show_default=True)
def main(runs: int) -> None:
    """Print the medians."""
    jvm = Jvm(TASKS)
    click.echo(f"{machine()}; ms, medians of {runs} runs in turns, after {_WARMUP}; (CPU time)\n")
    click.echo("| picture | orientation | to | JVM, first run | JVM | Python |\n|---|---|---|---|---|---|")
    for number, task in enumerate(TASKS):
        ours, theirs = _in_turns(jvm, number, runs)
        to = f"{task.size}, {task.mode}, {task.filter}"
        cells = [f"{task.width} x {task.height}", str(task.orientation), to, f"{ours[0].ms:.0f}"]
        cells += [_medians(each[_WARMUP:]) for each in (ours, theirs)]
        click.echo(f"| {' | '.join(cells)} |")
    jvm.close()


def _in_turns(jvm: Jvm, number: int, runs: int) -> tuple[list[Run], list[Run]]:
    """The runs of both sides, the first ones included."""
    task = TASKS[number]
    image = task.image()
    ours: list[Run] = []
    theirs: list[Run] = []
    for _ in range(runs + _WARMUP):
        ours.append(jvm.run(number))
        theirs.append(_python(image, task))
        if ours[-1].checksum != theirs[-1].checksum:
            raise click.ClickException(f"{task}: the pixels differ")
    return ours, theirs


def _medians(runs: list[Run]) -> str:
    ms, cpu_ms = statistics.median(run.ms for run in runs), statistics.median(run.cpu_ms for run in runs)
    return f"{ms:.1f} ({cpu_ms:.1f})"


if __name__ == "__main__":
    main()
