"""One `pocketvl export` of all own variants in a process of its own, its stages and their times recorded.

    python -m bench.peers.workers.pocketvl_export JOB RESULT

The job names source, calibration, out, cache and variants.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from pocketvl import api
from pocketvl.stage import Event, EventKind


def main() -> None:
    """Run the export that the job describes and write what it took."""
    job: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    stages: list[dict[str, object]] = []

    def note(event: Event) -> None:
        if event.kind in (EventKind.DONE, EventKind.CACHED):
            cached = event.kind is EventKind.CACHED
            name, seconds = type(event.stage).__name__, 0.0 if cached else event.seconds
            stages.append({"name": name, "title": event.stage.title, "seconds": seconds, "cached": cached})
            print(f"{event.stage.title}: {seconds:.1f} s", file=sys.stderr, flush=True)

    begin = time.perf_counter()
    done = api.export(
        job["source"],
        job["out"],
        calibration=job["calibration"],
        variants=job["variants"],
        keep_failing=True,
        cache=job["cache"],
        progress=note,
    )
    result = {"seconds": time.perf_counter() - begin, "stages": stages, "failures": list(done.failures)}
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
