package dev.pocketvl.core.engine;

import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * What a bundle says of one component's graph in one variant.
 *
 * @param graphId for messages, like {@code tflite-int8 image_encoder}
 * @param file path in the bundle
 * @param signature of a TFLite file, or null: its only one
 * @param precision like {@code int8}
 * @param minEngine the oldest engine version that computes it rightly, or null: any
 * @param inputs by name
 * @param outputs by name
 */
public record GraphSpec(
        String graphId,
        String file,
        @Nullable String signature,
        String precision,
        @Nullable String minEngine,
        List<TensorSpec> inputs,
        List<TensorSpec> outputs) {}
