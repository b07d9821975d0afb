package dev.pocketvl.core.golden;

import dev.pocketvl.core.errors.InputException;
import dev.pocketvl.core.image.Picture;
import java.nio.ByteBuffer;

/** Decodes JPEG and PNG files; the platform has its own. */
@FunctionalInterface
public interface PictureDecoder {
    /**
     * Decodes a picture.
     *
     * @param encoded the file, from position to limit
     * @throws InputException it cannot be decoded
     */
    Picture decode(ByteBuffer encoded);
}
