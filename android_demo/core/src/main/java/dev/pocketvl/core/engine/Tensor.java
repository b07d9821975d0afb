package dev.pocketvl.core.engine;

import java.nio.ByteBuffer;

/**
 * An array as graphs take and give it.
 *
 * @param dtype of its elements
 * @param shape sizes, all known
 * @param data direct, in native byte order, row-major, from position 0 to the limit
 */
public record Tensor(DType dtype, int[] shape, ByteBuffer data) {}
