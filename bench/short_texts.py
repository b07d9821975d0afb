"""What shorter texts are worth (`shorten-texts`, a step of `pocketvl compress`): docs/FASTER_GRAPHS.md.

Two bundles of one checkpoint, as it is and shortened: the text encoders of each variant that both have, in
turns in one process. Medians of paired ratios to the first one's time, and how far embeddings are apart.

    python -m bench.short_texts BUNDLE SHORTENED [--text "a red cube"] [--runs 60]
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from bench.timing import interleaved, machine, open_graph
from pocketvl.tasks.encoding import Encoder
from pocketvl_runtime.bundle import Bundle

_COMPONENT = "text_encoder"


@click.command()
@click.argument("bundle", type=click.Path(exists=True, path_type=Path))
@click.argument("shortened", type=click.Path(exists=True, path_type=Path))
@click.option("--text", default="a red cube left of a blue ball", show_default=True)
@click.option("--runs", default=60, show_default=True)
def main(bundle: Path, shortened: Path, text: str, runs: int) -> None:
    """Measure and print."""
    print(machine())
    opened = [Bundle.open(path) for path in (bundle, shortened)]
    feeds = [Encoder.of_bundle(each).feed(_COMPONENT, texts=[text]).read(0, 1) for each in opened]
    print("tokens:", ", ".join(str(values.shape[-1]) for feed in feeds for values in feed.values()))
    common = [name for name in opened[0].manifest.variants if name in opened[1].manifest.variants]
    for threads in (1, 2):
        for variant in common:
            graphs = {}
            for kind, each, feed in zip(("whole", "short"), opened, feeds, strict=True):
                (spec,) = (graph for graph in each.graphs(variant) if graph.component == _COMPONENT)
                run = open_graph(each.root / spec.file, _COMPONENT, threads)
                graphs[kind] = lambda _, run=run, feed=feed: run(feed)
            apart = float(np.abs(graphs["whole"]({}) - graphs["short"]({})).max())
            times = interleaved(graphs, {}, runs, warm=1)
            whole, short = (float(np.median(times[kind])) for kind in graphs)
            ratio = float(np.median(times["short"] / times["whole"]))
            told = f"{whole:7.2f} -> {short:6.2f} ms, {ratio:.3f}, {apart:.1e} apart"
            print(f"{threads} threads {variant:<16} {told}", flush=True)


if __name__ == "__main__":
    main()
