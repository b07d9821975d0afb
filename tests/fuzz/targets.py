"""All targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.fuzz.bundles import Bundles, Questions, Reranking
from tests.fuzz.checkpoints import Checkpoints
from tests.fuzz.commands import Commands
from tests.fuzz.datasets import Datasets
from tests.fuzz.graphs import Graphs
from tests.fuzz.pictures import Pictures
from tests.fuzz.recipes import Recipes
from tests.fuzz.target import Target
from tests.fuzz.texts import Texts

TARGETS: Mapping[str, Callable[[Path], Target]] = {
    "pictures": Pictures,
    "texts": Texts,
    "bundles": Bundles,
    "questions": Questions,
    "reranking": Reranking,
    "graphs": Graphs,
    "commands": Commands,
    "recipes": Recipes,
    "datasets": Datasets,
    "checkpoints": Checkpoints,
}
