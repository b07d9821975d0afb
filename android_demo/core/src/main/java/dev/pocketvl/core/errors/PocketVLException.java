package dev.pocketvl.core.errors;

import org.jspecify.annotations.Nullable;

/** Root of what this library throws; the message says what is wrong, where, and what to do about it, in one line. */
public abstract class PocketVLException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    PocketVLException(String message, @Nullable Throwable cause) {
        super(message, cause);
    }
}
