package dev.pocketvl.core.bundle;

import java.io.IOException;
import java.nio.ByteBuffer;

/**
 * Where a bundle's files lie: a folder, or an app's assets. Paths are those of the manifest: relative, with {@code /}.
 *
 * <p>{@link #toString} says where that is, for messages.
 */
public interface BundleSource {
    /** Whether there is such a file. */
    boolean exists(String path);

    /**
     * The size of a file in bytes, found without reading it.
     *
     * @throws IOException there is none, or it is not a regular file
     */
    long size(String path) throws IOException;

    /**
     * The content of a file, memory-mapped where it can be.
     *
     * @return direct, from position 0 to the limit; what it holds must not change afterwards
     * @throws IOException it cannot be read
     */
    ByteBuffer open(String path) throws IOException;
}
