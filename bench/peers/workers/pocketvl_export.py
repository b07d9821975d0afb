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
    known: set[tuple[str, str]] = set()

    def note(event: Event) -> None:
        if event.kind in (EventKind.DONE, EventKind.CACHED):
            name, title = type(event.stage).__name__, event.stage.title
            if (name, title) in known:  # a later plan of the same export asks for it again
                return
            known.add((name, title))
            cached = event.kind is EventKind.CACHED
            seconds = 0.0 if cached else event.seconds
            stages.append({"name": name, "title": title, "seconds": seconds, "cached": cached})
            print(f"{title}: {seconds:.1f} s", file=sys.stderr, flush=True)

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
