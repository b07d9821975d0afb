package dev.pocketvl.core.image;

/**
 * A decoded picture.
 *
 * @param width in pixels, at least 1
 * @param height in pixels, at least 1
 * @param argb width x height pixels, row-major, each 0xAARRGGBB, opacity not multiplied into the colours
 * @param orientation EXIF tag 0x0112, 1 to 8; 1 where the file has none or its decoder has turned the picture already
 */
public record Picture(int width, int height, int[] argb, int orientation) {}
