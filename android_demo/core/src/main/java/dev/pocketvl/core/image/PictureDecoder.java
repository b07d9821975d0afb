package dev.pocketvl.core.image;

import dev.pocketvl.core.errors.InputException;

/** Makes a {@link Picture} of a file. Android and the desktop JVM have decoders of their own, so each supplies one. */
@FunctionalInterface
public interface PictureDecoder {
    /**
     * Decodes a picture: the file's own RGB, without conversion to sRGB, opacity not multiplied into the colours, grey of
     * 16 bits scaled to 8 as {@code (255 * v + 32767) / 65535}, and either turned upright already or with its EXIF
     * orientation beside it.
     *
     * @param file the whole file, JPEG and PNG at least
     * @throws InputException it is no picture, is damaged, or is too large for memory
     */
    Picture decode(byte[] file);
}
