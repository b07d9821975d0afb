package dev.pocketvl.core.manifest;

import dev.pocketvl.core.engine.DType;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * An input or output of a component.
 *
 * @param name in the graph (ONNX) or in its signature (TFLite)
 * @param dtype of its elements
 * @param shape sizes of its axes
 * @param kind what it carries
 * @param from of an input: the processor, or the output {@code component.port}, that fills it; null where the task says
 *     what stands there
 * @param space of an embedding: equal where vectors may be compared; else null
 */
public record Port(
        String name,
        DType dtype,
        List<Size> shape,
        PortKind kind,
        @Nullable String from,
        @Nullable String space) {
    public Port {
        shape = List.copyOf(shape);
    }
}
