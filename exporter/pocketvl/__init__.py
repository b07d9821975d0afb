"""pocketvl on the host."""

import pocketvl_runtime  # noqa: F401 - it switches off what ONNX Runtime tells its makers, which others import first
