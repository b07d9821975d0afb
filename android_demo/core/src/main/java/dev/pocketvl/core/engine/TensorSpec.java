package dev.pocketvl.core.engine;

import java.util.List;

/**
 * An input or output as a graph must have it.
 *
 * @param name in the graph (ONNX) or in its signature (TFLite)
 * @param dtype of its elements
 * @param shape sizes, all known
 */
public record TensorSpec(String name, DType dtype, List<Integer> shape) {}
