package dev.pocketvl.core.errors;

import org.jspecify.annotations.Nullable;

/** A file that this library keeps cannot be read or written, or is not what it should be. */
public final class StorageException extends PocketVLException {
    private static final long serialVersionUID = 1L;

    public StorageException(String message) {
        super(message, null);
    }

    public StorageException(String message, @Nullable Throwable cause) {
        super(message, cause);
    }
}
