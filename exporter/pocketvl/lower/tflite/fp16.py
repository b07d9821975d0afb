"""The fp16 variant of a float TFLite graph: weights stored as fp16, dequantized when an engine loads it."""

from __future__ import annotations

import io
from contextlib import redirect_stderr
from pathlib import Path

from pocketvl.errors import LoweringError
from pocketvl.lower.quiet import quiet
from pocketvl.lower.tflite.export import WEIGHT_BEARING, write_tflite
from pocketvl.lower.tflite.graph import check_ops_tflite, op_counts_tflite, parse_tflite


def cast_fp16_tflite(source: Path, target: Path) -> None:
    """Store the weights of a float TFLite graph as fp16; engines widen them, once, when they load it.

    Args:
        source: a float graph as `export_tflite` writes it.
        target: where the .tflite file with fp16 weights is written.

    Raises:
        LoweringError: the graph cannot be read or has nothing to cast.
    """
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    counts = op_counts_tflite(source)
    present = [name for name in WEIGHT_BEARING if name in counts]
    if not present:
        raise LoweringError(f"{source.name} has no weights that could be cast to fp16")
    casting = qtyping.OpQuantizationConfig(
        weight_tensor_config=qtyping.TensorQuantizationConfig(
            num_bits=16, dtype=qtyping.TensorDataType.FLOAT
        ),
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    with quiet(), redirect_stderr(io.StringIO()):  # one of its progress bars cannot be switched off
        tool = quantizer.Quantizer(str(source))
        for name in present:
            tool.update_quantization_recipe(
                ".*", qtyping.TFLOperationName(name), casting, algorithm_key=AlgorithmName.FLOAT_CASTING
            )
        content = tool.quantize(enable_progress_bar=False, enable_progress_report=False).quantized_model
    # The quantizer appends weights to the file, where TFLite 2.16's C API does not look.
    write_tflite(parse_tflite(bytearray(content)), target)
    check_ops_tflite(target)
