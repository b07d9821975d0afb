package dev.pocketvl.core.image;

/** An opaque picture that is read in pieces, so that a large one is never held twice. */
interface RgbRows {
    int width();

    int height();

    /**
     * Reads a rectangle that lies in the picture.
     *
     * @param rgb takes rows x columns pixels from its begin, row-major, each 0x00RRGGBB; what is above is undefined
     */
    void read(int left, int top, int columns, int rows, int[] rgb);
}
