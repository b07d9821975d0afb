package dev.pocketvl.core.errors;

import org.jspecify.annotations.Nullable;

/** What was asked cannot be: an unreadable picture, an empty text, no such variant. */
public final class InputException extends PocketVLException {
    private static final long serialVersionUID = 1L;

    public InputException(String message) {
        super(message, null);
    }

    public InputException(String message, @Nullable Throwable cause) {
        super(message, cause);
    }
}
