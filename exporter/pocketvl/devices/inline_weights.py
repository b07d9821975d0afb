"""TFLite graphs whose weights lie behind the flatbuffer, for engines that look for them inside."""

from __future__ import annotations

from pocketvl_runtime.errors import BackendError

_NOWHERE = 1
"""Offsets of buffers begin above it: 0 and 1 are written where there is nothing behind the flatbuffer."""


def with_weights_inside(content: bytes) -> bytes | None:
    """The same graph with every weight inside the flatbuffer; None: they are there already.

    ai-edge-quantizer puts weights that it casts to fp16 behind the flatbuffer. TFLite's C API, unlike those
    of Java, Python and C++, does not find them there: 2.16.1 says "input tensor lacks data".

    Args:
        content: of a .tflite file.

    Raises:
        BackendError: ai-edge-litert is not installed.
    """
    import numpy as np

    try:
        import flatbuffers
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise BackendError(
            f"TFLite graphs cannot be read here ({error}): pip install pocketvl[litert]"
        ) from error
    model = schema.ModelT.InitFromPackedBuf(content, 0)
    outside = [buffer for buffer in model.buffers if buffer.offset > _NOWHERE]
    if not outside:
        return None
    for buffer in outside:
        buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
        buffer.offset = buffer.size = 0
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
