package dev.pocketvl.core.image;

/** Large pictures that take no room: colours that rise, each at a pace of its own, and wrap around. */
public final class Waves {
    private Waves() {}

    /** The same as {@code waves} of tests/android/picture_cases.py. */
    public static int[] argb(int width, int height, int seed, boolean opaque) {
        int[] argb = new int[width * height];
        for (int y = 0, i = 0; y < height; y++) {
            for (int x = 0; x < width; x++, i++) {
                int alpha = opaque ? 255 : x + 2 * y;
                int red = x * 3 + y + seed;
                int green = y * 5 + x * x / 9;
                int blue = x * y / 3 + seed;
                argb[i] = (alpha & 255) << 24 | (red & 255) << 16 | (green & 255) << 8 | blue & 255;
            }
        }
        return argb;
    }
}
