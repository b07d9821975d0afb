package dev.pocketvl.core.image;

import java.util.List;

/**
 * How a picture becomes pixels; a manifest's processor of kind {@code image}. Names are the manifest's, in capitals.
 *
 * @param orientation whether the picture is turned as its EXIF data say
 * @param alpha what becomes of transparency
 * @param steps in order; they leave every picture at {@code height} x {@code width}
 * @param height in pixels, of what comes out
 * @param width in pixels, of what comes out
 */
public record ImageSettings(Orientation orientation, Alpha alpha, List<Step> steps, int height, int width) {
    public ImageSettings {
        steps = List.copyOf(steps);
    }

    /** Whether a picture is turned as its EXIF data say. */
    public enum Orientation {
        EXIF,
        AS_STORED
    }

    /** What becomes of transparency: laid on white, or left out of account. */
    public enum Alpha {
        OVER_WHITE,
        DROP
    }

    /** One step from a decoded picture to the pixels of a graph. */
    public sealed interface Step permits Resize, CenterCrop, Pad {}

    /**
     * Resamples a picture.
     *
     * @param mode which edges are set
     * @param size pixels of the named edge, in the edge modes; 0 in mode {@code EXACT}
     * @param height in pixels, in mode {@code EXACT}; else 0
     * @param width in pixels, in mode {@code EXACT}; else 0
     * @param filter of the resampling
     * @param antialias whether the filter is widened where the picture becomes smaller
     * @param rounding of the edge that follows from the aspect ratio
     */
    public record Resize(
            Mode mode, int size, int height, int width, Filter filter, boolean antialias, Rounding rounding)
            implements Step {}

    /**
     * Cuts a rectangle out of the middle; what lies outside the picture is black.
     *
     * @param height in pixels
     * @param width in pixels
     * @param rounding of the offsets, {@code (size - crop) / 2}
     */
    public record CenterCrop(int height, int width, Rounding rounding) implements Step {}

    /**
     * Puts a picture into a larger one, filled with a colour.
     *
     * @param height in pixels
     * @param width in pixels
     * @param value red, green and blue, 0 to 255
     * @param anchor where the picture lies
     */
    public record Pad(int height, int width, int[] value, Anchor anchor) implements Step {}

    /** The edge modes keep the aspect ratio and set one edge; {@code EXACT} stretches. */
    public enum Mode {
        SHORTEST_EDGE,
        LONGEST_EDGE,
        EXACT
    }

    /** Pillow's resampling filters. */
    public enum Filter {
        NEAREST,
        BOX,
        BILINEAR,
        HAMMING,
        BICUBIC,
        LANCZOS
    }

    /** How a number of pixels becomes an integer. */
    public enum Rounding {
        FLOOR,
        HALF_UP,
        HALF_EVEN
    }

    /** Where a picture lies in a padded one. */
    public enum Anchor {
        TOP_LEFT,
        CENTER
    }
}
