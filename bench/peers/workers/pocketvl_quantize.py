"""Static int8 of both towers, as an export makes it, and nothing else.

    python -m bench.peers.workers.pocketvl_quantize JOB RESULT

The job names source, calibration and cache.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from pocketvl.pipelines.variants import VariantStages
from pocketvl.recipes.export_recipe import DEFAULT, read_export_recipe
from pocketvl.stage import plan, run
from pocketvl_runtime.manifest import Precision


def main() -> None:
    """Quantize what the job names and write how long it took."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    begin = time.perf_counter()
    recipe = read_export_recipe(DEFAULT)
    stages = VariantStages(Path(job["source"]), Path(job["calibration"]), recipe, is_quantized=True)
    run(plan([stages.integers(name, Precision.INT8) for name in stages.components]), Path(job["cache"]))
    Path(sys.argv[2]).write_text(json.dumps({"seconds": time.perf_counter() - begin}), encoding="utf-8")


if __name__ == "__main__":
    main()
