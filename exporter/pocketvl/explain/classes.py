"""Which class an operator is of, by the names that ONNX Runtime, TFLite and XNNPACK give it."""

from __future__ import annotations

from enum import StrEnum


class OpClass(StrEnum):
    """What an operator does, as far as its cost goes."""

    MULTIPLY = "linears and products"
    CONVERT = "conversions"
    LAYOUT = "layout and copies"
    LOOKUP = "lookups"
    NORMALIZE = "norms and reductions"
    SOFTMAX = "softmax"
    ACTIVATION = "activations"
    ARITHMETIC = "elementwise arithmetic"
    CONTROL = "control flow"
    OTHER = "other"


_NAMES = {
    OpClass.MULTIPLY: """
        MatMul FusedMatMul MatMulInteger MatMulIntegerToFloat DynamicQuantizeMatMul QLinearMatMul MatMulNBits
        MatMulBnb4 Gemm FusedGemm QGemm Conv FusedConv NhwcFusedConv QLinearConv ConvInteger ConvTranspose
        QAttention Attention MultiHeadAttention Einsum FULLY_CONNECTED CONV_2D DEPTHWISE_CONV_2D
        TRANSPOSE_CONV CONV_3D BATCH_MATMUL""",
    OpClass.CONVERT: "QuantizeLinear DequantizeLinear DynamicQuantizeLinear Cast CAST QUANTIZE DEQUANTIZE",
    OpClass.LAYOUT: """
        Transpose Reshape Flatten Squeeze Unsqueeze Concat QLinearConcat Slice Split SplitToSequence Pad
        Expand Tile Identity ReorderInput ReorderOutput DepthToSpace SpaceToDepth Memcpy
        TRANSPOSE RESHAPE SQUEEZE EXPAND_DIMS CONCATENATION SLICE STRIDED_SLICE SPLIT SPLIT_V PAD PADV2 PACK
        UNPACK BROADCAST_TO TILE MIRROR_PAD DEPTH_TO_SPACE SPACE_TO_DEPTH REVERSE_V2 DYNAMIC_UPDATE_SLICE""",
    OpClass.LOOKUP: """
        Gather GatherElements GatherND GatherBlockQuantized Scatter ScatterElements ScatterND OneHot
        EmbedLayerNormalization GATHER GATHER_ND EMBEDDING_LOOKUP SCATTER_ND ONE_HOT""",
    OpClass.NORMALIZE: """
        LayerNormalization SkipLayerNormalization SimplifiedLayerNormalization RMSNormalization
        InstanceNormalization GroupNormalization BatchNormalization LpNormalization ReduceMean ReduceSum
        ReduceMax ReduceMin ReduceProd ReduceL2 ReduceSumSquare CumSum ArgMax ArgMin TopK
        MEAN SUM REDUCE_MAX REDUCE_MIN REDUCE_PROD SQUARED_DIFFERENCE RSQRT L2_NORMALIZATION CUMSUM ARG_MAX
        ARG_MIN TOPK_V2""",
    OpClass.SOFTMAX: "Softmax LogSoftmax QLinearSoftmax SOFTMAX LOG_SOFTMAX",
    OpClass.ACTIVATION: """
        Gelu FastGelu BiasGelu QuickGelu Erf Tanh Sigmoid QLinearSigmoid Relu LeakyRelu Elu Selu HardSwish
        HardSigmoid Softplus Exp Log Sqrt Reciprocal Sin Cos Clip Mish PRelu
        GELU TANH LOGISTIC RELU RELU6 RELU_N1_TO_1 RELU_0_TO_1 ELU HARD_SWISH EXP LOG SQRT SIN COS LEAKY_RELU
        PRELU""",
    OpClass.ARITHMETIC: """
        Add Sub Mul Div Pow Min Max Where Equal Greater Less GreaterOrEqual LessOrEqual And Or Not Xor Neg Abs
        Sign Floor Ceil Round Mod Sum QLinearAdd QLinearMul Trilu IsNaN
        ADD SUB MUL DIV POW MINIMUM MAXIMUM SELECT SELECT_V2 WHERE EQUAL NOT_EQUAL GREATER GREATER_EQUAL LESS
        LESS_EQUAL LOGICAL_AND LOGICAL_OR LOGICAL_NOT NEG ABS SIGN FLOOR CEIL ROUND FLOOR_DIV FLOOR_MOD ADD_N
        SQUARE""",
    OpClass.CONTROL: "If Loop Scan SequenceMap WHILE IF CALL CALL_ONCE STABLEHLO_WHILE STABLEHLO_COMPOSITE",
}
_CLASSES = {name: kind for kind, names in _NAMES.items() for name in names.split()}

_DELEGATED = (  # XNNPACK's names begin so; the first that fits counts
    ("Fully Connected", OpClass.MULTIPLY),
    ("Convolution", OpClass.MULTIPLY),
    ("Deconvolution", OpClass.MULTIPLY),
    ("Depthwise", OpClass.MULTIPLY),
    ("DWConv", OpClass.MULTIPLY),
    ("Batch Matrix Multiply", OpClass.MULTIPLY),
    ("Dynamic Fully Connected", OpClass.MULTIPLY),
    ("Convert", OpClass.CONVERT),
    ("Transpose", OpClass.LAYOUT),
    ("Static Reshape", OpClass.LAYOUT),
    ("Copy", OpClass.LAYOUT),
    ("Concatenate", OpClass.LAYOUT),
    ("Static Slice", OpClass.LAYOUT),
    ("Slice", OpClass.LAYOUT),
    ("Split", OpClass.LAYOUT),
    ("Even Split", OpClass.LAYOUT),
    ("Constant Pad", OpClass.LAYOUT),
    ("Static Constant Pad", OpClass.LAYOUT),
    ("Broadcast", OpClass.LAYOUT),
    ("Depth To Space", OpClass.LAYOUT),
    ("Space To Depth", OpClass.LAYOUT),
    ("Mean Squared", OpClass.NORMALIZE),
    ("Mean", OpClass.NORMALIZE),
    ("Sum", OpClass.NORMALIZE),
    ("Reduce", OpClass.NORMALIZE),
    ("Squared Difference", OpClass.NORMALIZE),
    ("Reciprocal Square Root", OpClass.NORMALIZE),
    ("Softmax", OpClass.SOFTMAX),
    ("Add", OpClass.ARITHMETIC),
    ("Subtract", OpClass.ARITHMETIC),
    ("Multiply", OpClass.ARITHMETIC),
    ("Divide", OpClass.ARITHMETIC),
    ("Maximum", OpClass.ARITHMETIC),
    ("Minimum", OpClass.ARITHMETIC),
    ("Clamp", OpClass.ACTIVATION),
    ("GELU", OpClass.ACTIVATION),
    ("ApproxGELU", OpClass.ACTIVATION),
    ("Sigmoid", OpClass.ACTIVATION),
    ("TanH", OpClass.ACTIVATION),
    ("ELU", OpClass.ACTIVATION),
    ("LeakyReLU", OpClass.ACTIVATION),
    ("PReLU", OpClass.ACTIVATION),
    ("HardSwish", OpClass.ACTIVATION),
    ("Exp", OpClass.ACTIVATION),
    ("Log", OpClass.ACTIVATION),
    ("Square Root", OpClass.ACTIVATION),
    ("Negate", OpClass.ARITHMETIC),
    ("Power", OpClass.ARITHMETIC),
    ("Modulus", OpClass.ARITHMETIC),
    ("Floor", OpClass.ARITHMETIC),
    ("Static Expand Dims", OpClass.LAYOUT),
    ("Normalize", OpClass.NORMALIZE),
    ("Abs", OpClass.ARITHMETIC),
    ("Square", OpClass.ARITHMETIC),
    ("Invalid Unary Op", OpClass.ACTIVATION),
)
TABLE = "table of an activation"
"""What XNNPACK calls an invalid unary op: an activation of 8-bit integers, looked up in a table."""
TRANSCENDENTAL = (OpClass.SOFTMAX, OpClass.ACTIVATION)
"""Classes whose elements take many instructions each."""


def class_of(op: str) -> OpClass:
    """The class of an operator by its type."""
    found = _CLASSES.get(op.rpartition("::")[2])
    if found is None:
        found = next((kind for start, kind in _DELEGATED if op.startswith(start)), OpClass.OTHER)
    return found


def short_name(op: str) -> str:
    """An operator's type without what XNNPACK says of layouts and kernels."""
    return TABLE if op.startswith("Invalid Unary Op") else op.partition(" (")[0]
