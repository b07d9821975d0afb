"""The processes of one launch (`torchrun`, `accelerate launch`), which train together.

All of them run the same command. What is not training is done by the first of them alone; the others wait
for what it leaves in the cache, which all of them must be able to read.
"""

from __future__ import annotations

import os


def processes() -> int:
    """How many there are; 1 for a command that was started by itself."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the first of its launch, or the only one."""
    return os.environ.get("RANK", "0") == "0"
