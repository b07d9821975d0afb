package dev.pocketvl.core.image;

/** A decoded picture as its processor sees it: turned upright, and opaque. */
final class PictureRows implements RgbRows {
    private static final int OPAQUE = 0xFF;

    private final Picture picture;
    private final boolean overWhite;
    private final boolean transposed;
    /** The step in {@code argb} from an upright pixel to the next one of its row, and to the one below. */
    private final int across;

    private final int down;
    private final int start;

    /**
     * @param picture with as many pixels as it says
     * @param orientation EXIF tag 0x0112; what is none of 2 to 8 turns nothing
     * @param overWhite whether transparency is laid on white; else it is left out of account
     */
    PictureRows(Picture picture, int orientation, boolean overWhite) {
        this.picture = picture;
        this.overWhite = overWhite;
        int turn = orientation < 1 || orientation > 8 ? 1 : orientation;
        transposed = turn >= 5;
        int width = picture.width();
        boolean mirrored = turn == 2 || turn == 3 || turn == 7 || turn == 8; // stored columns run backwards
        boolean flipped = turn == 3 || turn == 4 || turn == 6 || turn == 7; // stored rows do
        int column = mirrored ? -1 : 1;
        int row = flipped ? -width : width;
        across = transposed ? row : column;
        down = transposed ? column : row;
        start = (mirrored ? width - 1 : 0) + (flipped ? (picture.height() - 1) * width : 0);
    }

    @Override
    public int width() {
        return transposed ? picture.height() : picture.width();
    }

    @Override
    public int height() {
        return transposed ? picture.width() : picture.height();
    }

    @Override
    public void read(int left, int top, int columns, int rows, int[] rgb) {
        int first = start + left * across + top * down;
        if (transposed) {
            transpose(first, columns, rows, rgb);
        } else {
            copy(first, columns, rows, rgb);
        }
        if (overWhite) {
            layOnWhite(rgb, columns * rows);
        }
    }

    private void copy(int first, int columns, int rows, int[] rgb) {
        int[] argb = picture.argb();
        for (int y = 0; y < rows; y++) {
            int from = first + y * down;
            int to = y * columns;
            if (across == 1) {
                System.arraycopy(argb, from, rgb, to, columns);
                continue;
            }
            for (int x = 0; x < columns; x++) {
                rgb[to + x] = argb[from - x];
            }
        }
    }

    /** Goes along stored rows, which are upright columns: all that is read of a row lies side by side in memory. */
    private void transpose(int first, int columns, int rows, int[] rgb) {
        int[] argb = picture.argb();
        for (int x = 0; x < columns; x++) {
            int from = first + x * across;
            for (int y = 0, to = x; y < rows; y++, to += columns) {
                rgb[to] = argb[from + y * down];
            }
        }
    }

    private static void layOnWhite(int[] rgb, int count) {
        for (int i = 0; i < count; i++) {
            int pixel = rgb[i];
            int alpha = pixel >>> 24;
            if (alpha != OPAQUE) {
                rgb[i] = overWhite(pixel >> 16 & 0xFF, alpha) << 16
                        | overWhite(pixel >> 8 & 0xFF, alpha) << 8
                        | overWhite(pixel & 0xFF, alpha);
            }
        }
    }

    /** A channel of a given opacity on white, 0 to 255 each. */
    static int overWhite(int channel, int alpha) {
        int scaled = 128 * (channel * alpha + 255 * (255 - alpha)) + 16384;
        return (scaled + (scaled >> 8) >> 8) >> 7;
    }
}
