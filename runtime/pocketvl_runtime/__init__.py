"""pocketvl on the device: `from pocketvl_runtime import load`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pocketvl_runtime.errors import BackendWarning, ImageWarning

if TYPE_CHECKING:
    from pocketvl_runtime.model import Model, load

__all__ = ["BackendWarning", "ImageWarning", "Model", "load"]


def __getattr__(name: str) -> object:
    # Imported when asked for: `import pocketvl_runtime.errors` must not load numpy, Pillow and tokenizers.
    if name in __all__:
        from pocketvl_runtime import model

        return getattr(model, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
