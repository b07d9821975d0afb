package dev.pocketvl.core.tasks;

import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * How long the stages of one answer took, in nanoseconds; decoding the picture is not among them.
 *
 * <p>Stages are {@code preprocess} (a picture's pixels), {@code tokens} (texts' ids), {@code image} and {@code text}
 * (the encoders) or {@code fusion} (the component that reads both), and {@code post} (from their outputs to the answer).
 *
 * @param nanoseconds by stage, in the order in which they began
 */
public record StageTimes(Map<String, Long> nanoseconds) {
    public static final String PREPROCESS = "preprocess";
    public static final String TOKENS = "tokens";
    public static final String IMAGE = "image";
    public static final String TEXT = "text";
    public static final String FUSION = "fusion";
    public static final String POST = "post";

    public StageTimes {
        nanoseconds = Collections.unmodifiableMap(new LinkedHashMap<>(nanoseconds));
    }

    /** The sum of all stages. */
    public long total() {
        return nanoseconds.values().stream().mapToLong(Long::longValue).sum();
    }
}
