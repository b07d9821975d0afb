package dev.pocketvl.core.image;

/**
 * An opaque picture between two steps.
 *
 * @param rgb height x width x 3, row-major, red first
 */
record RgbPixels(int width, int height, byte[] rgb) implements RgbRows {
    private static final int CHANNELS = 3;

    @Override
    public void read(int left, int top, int columns, int rows, int[] into) {
        int to = 0;
        for (int y = top; y < top + rows; y++) {
            int from = (y * width + left) * CHANNELS;
            for (int x = 0; x < columns; x++, from += CHANNELS) {
                into[to++] = (rgb[from] & 0xFF) << 16 | (rgb[from + 1] & 0xFF) << 8 | rgb[from + 2] & 0xFF;
            }
        }
    }

    /**
     * What a rectangle shows of a picture that lies in it, or over its edges.
     *
     * @param left where the picture's left edge is, in columns of the rectangle; below 0 where it sticks out
     * @param top the same of its upper edge
     * @param fill three bytes, where there is no picture
     */
    static RgbPixels framed(RgbRows picture, int left, int top, int width, int height, byte[] fill) {
        byte[] rgb = new byte[Math.multiplyExact(Math.multiplyExact(width, height), CHANNELS)];
        int firstColumn = Math.max(0, left);
        int columns = Math.min(width, left + picture.width()) - firstColumn;
        int firstRow = Math.max(0, top);
        int lastRow = Math.min(height, top + picture.height());
        if (columns < width || lastRow - firstRow < height) {
            for (int i = 0; i < rgb.length; i++) {
                rgb[i] = fill[i % CHANNELS];
            }
        }
        int[] row = new int[Math.max(0, columns)];
        for (int y = firstRow; y < lastRow && columns > 0; y++) {
            picture.read(firstColumn - left, y - top, columns, 1, row);
            int to = (y * width + firstColumn) * CHANNELS;
            for (int pixel : row) {
                rgb[to++] = (byte) (pixel >> 16);
                rgb[to++] = (byte) (pixel >> 8);
                rgb[to++] = (byte) pixel;
            }
        }
        return new RgbPixels(width, height, rgb);
    }
}
