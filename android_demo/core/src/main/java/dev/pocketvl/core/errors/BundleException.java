package dev.pocketvl.core.errors;

import org.jspecify.annotations.Nullable;

/** A bundle is missing or damaged, or of a version that this library does not read. */
public final class BundleException extends PocketVLException {
    private static final long serialVersionUID = 1L;

    public BundleException(String message) {
        super(message, null);
    }

    public BundleException(String message, @Nullable Throwable cause) {
        super(message, cause);
    }
}
