package dev.pocketvl.core.errors;

import org.jspecify.annotations.Nullable;

/** An engine is missing or too old, refuses a graph, or computes something that is no answer. */
public final class EngineException extends PocketVLException {
    private static final long serialVersionUID = 1L;

    public EngineException(String message) {
        super(message, null);
    }

    public EngineException(String message, @Nullable Throwable cause) {
        super(message, cause);
    }
}
