"""How long the Android core's own work takes on a desktop JVM, and in the Python runtime.

    mvn -q -f android_demo/pom.xml -pl core test-compile \\
        dependency:build-classpath -Dmdep.outputFile=target/classpath
    make export
    python -m bench.android_core [--runs 30]

Pictures to pixels, texts to ids, embeddings to a ranking. Both take turns, run by run, and what they make
must be equal. The JVM starts from ARGB, to which Android decodes; the runtime from Pillow's RGB.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import click
import numpy as np
from PIL import Image

from bench.timing import machine
from pocketvl.data.dataset import Dataset
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.manifest import Filter, ImageProcessor, ResizeMode, TextProcessor
from pocketvl_runtime.tasks import probabilities, ranked_answers, similarities
from pocketvl_runtime.text import Tokenizer
from tests.android.picture_cases import clip, stretched, waves

_CORE = Path("android_demo/core/target")
_MAIN = "dev.pocketvl.core.tasks.CoreBenchmark"
_ORIENTATION, _SEED, _WARMUP = 0x0112, 7, 10
_TEXTS, _RANKED, _DIMENSION, _SCALE = 100, 1000, 256, 30.0


@dataclass(frozen=True)
class Task:
    """Something that both do.

    Attributes:
        name: of the row.
        line: what makes it in the JVM.
        python: does it here, and gives the bytes that both must give.
    """

    name: str
    line: str
    python: Callable[[], bytes]


@dataclass(frozen=True)
class PictureCase:
    """A picture, and the size it is brought to: the shorter edge and the middle, or both edges."""

    width: int
    height: int
    orientation: int
    mode: ResizeMode
    size: int
    filter: Filter

    def task(self) -> Task:
        """From a decoded picture to pixels; an upright one is not copied, as a decoder's would not be."""
        image, processor = self._image(), self._processor()

        def run() -> bytes:
            upright = image if self.orientation == 1 else open_image(image)
            return preprocess(upright, processor).tobytes()

        how = f"{self.mode} {self.size} {self.filter}"
        name = f"{self.width} x {self.height}, orientation {self.orientation}, to {how}"
        line = f"picture {self.width} {self.height} {self.orientation} {_SEED} {how}"
        return Task(name, line, run)

    def _processor(self) -> ImageProcessor:
        if self.mode is ResizeMode.EXACT:
            return stretched(self.size, self.size, self.filter)
        return clip(self.size, self.filter)

    def _image(self) -> Image.Image:
        argb = waves(self.width, self.height, _SEED, opaque=True)
        image = Image.fromarray(np.stack([argb >> shift & 255 for shift in (16, 8, 0)], -1).astype(np.uint8))
        image.getexif()[_ORIENTATION] = self.orientation
        return image


_SHORTEST, _EXACT = ResizeMode.SHORTEST_EDGE, ResizeMode.EXACT
PICTURES = (
    PictureCase(640, 480, 1, _SHORTEST, 224, Filter.BICUBIC),
    PictureCase(4000, 3000, 1, _SHORTEST, 224, Filter.BICUBIC),
    PictureCase(4000, 3000, 6, _SHORTEST, 224, Filter.BICUBIC),
    PictureCase(4000, 3000, 1, _EXACT, 224, Filter.BILINEAR),
    PictureCase(4000, 3000, 1, _EXACT, 384, Filter.BICUBIC),
)


def token_task(bundle: Bundle, texts: list[str], folder: Path) -> Task:
    """Texts to ids, one by one."""
    name, processor = next(
        (name, each) for name, each in bundle.manifest.processors.items() if isinstance(each, TextProcessor)
    )
    tokenizer = Tokenizer(bundle.read(processor.file), processor)
    file = folder / "texts"
    file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")

    def run() -> bytes:
        return b"".join(tokenizer.encode([text]).ids.astype("<i4").tobytes() for text in texts)

    return Task(f"{len(texts)} captions to ids", f"tokens {bundle.root} {name} {file}", run)


def ranking_task(folder: Path) -> Task:
    """Embeddings of a picture and of many texts to ranked probabilities."""
    vectors = np.random.default_rng(_SEED).standard_normal((1 + _RANKED, _DIMENSION), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    file = folder / "vectors"
    file.write_bytes(vectors.astype("<f4").tobytes())
    names = [str(number) for number in range(_RANKED)]

    def run() -> bytes:
        shares = probabilities(similarities(vectors[0], vectors[1:]), _SCALE)
        ranked = ranked_answers(names, shares, _RANKED)
        return np.array([int(answer.answer) for answer in ranked], "<i4").tobytes()

    name = f"{_RANKED} embeddings of {_DIMENSION} ranked"
    return Task(name, f"ranking {file} {_DIMENSION} {_SCALE}", run)


@dataclass(frozen=True)
class Run:
    """One task done: milliseconds by the clock, CPU time of the thread that works, and the bytes' CRC-32."""

    ms: float
    cpu_ms: float
    checksum: int


class Jvm:
    """The benchmark's process, which does one task at a time when told to."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        """Starts it and hands the tasks over."""
        libraries = (_CORE / "classpath").read_text().strip()
        path = ":".join([*(str(_CORE / each) for each in ("classes", "test-classes")), libraries])
        command = ["java", "-XX:+UseSerialGC", "-Xmx1g", "-cp", path, _MAIN]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for task in tasks:
            self._ask(task.line)

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
            raise click.ClickException("the JVM ended; run the `mvn` line of this file first")
        return answer


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def _python(task: Task) -> Run:
    begin, cpu_begin = time.perf_counter(), time.thread_time()
    made = task.python()
    ms, cpu_ms = 1e3 * (time.perf_counter() - begin), 1e3 * (time.thread_time() - cpu_begin)
    return Run(ms, cpu_ms, zlib.crc32(made))


@click.command()
@click.option("--runs", default=30, show_default=True)
@click.option("--bundle", "root", default="build/tabletop-clip", show_default=True, help="Whose tokenizer.")
@click.option("--data", default="build/tabletop-eval", show_default=True, help="Whose captions.")
def main(runs: int, root: str, data: str) -> None:
    """Print the medians."""
    texts = [sample.captions[0] for sample in Dataset.open(data).samples[:_TEXTS]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tasks = [case.task() for case in PICTURES]
        tasks += [token_task(Bundle.open(root), texts, folder), ranking_task(folder)]
        jvm = Jvm(tasks)
        click.echo(f"{machine()}; ms, medians of {runs} runs in turns, after {_WARMUP}; (CPU time)\n")
        click.echo("| task | JVM, first run | JVM | Python |\n|---|---|---|---|")
        for number, task in enumerate(tasks):
            ours, theirs = _in_turns(jvm, number, task, runs)
            cells = [task.name, f"{ours[0].ms:.1f}", *(_medians(each[_WARMUP:]) for each in (ours, theirs))]
            click.echo(f"| {' | '.join(cells)} |")
        jvm.close()


def _in_turns(jvm: Jvm, number: int, task: Task, runs: int) -> tuple[list[Run], list[Run]]:
    """The runs of both sides, the first ones included."""
    ours: list[Run] = []
    theirs: list[Run] = []
    for _ in range(runs + _WARMUP):
        ours.append(jvm.run(number))
        theirs.append(_python(task))
        if ours[-1].checksum != theirs[-1].checksum:
            raise click.ClickException(f"{task.name}: what both made differs")
    return ours, theirs


def _medians(runs: list[Run]) -> str:
    ms, cpu_ms = statistics.median(run.ms for run in runs), statistics.median(run.cpu_ms for run in runs)
    return f"{ms:.2f} ({cpu_ms:.2f})"


if __name__ == "__main__":
    main()
