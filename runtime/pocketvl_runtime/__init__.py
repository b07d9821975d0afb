"""pocketvl on the device: `from pocketvl_runtime import load`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pocketvl_runtime.errors import BackendWarning, ImageWarning

if TYPE_CHECKING:
    from pocketvl_runtime.model import Model, load

__all__ = ["BackendWarning", "ImageWarning", "Model", "load"]

# ONNX Runtime leaves a device id in the home folder and calls its makers, unless this is set before anybody
# imports it. Who sets it to something else is heeded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def __getattr__(name: str) -> object:
    # Imported when asked for: `import pocketvl_runtime.errors` must not load numpy, Pillow and tokenizers.
    if name in __all__:
        from pocketvl_runtime import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
