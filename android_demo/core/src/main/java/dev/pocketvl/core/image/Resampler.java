package dev.pocketvl.core.image;

import java.util.Arrays;

/**
 * Resizes a picture as Pillow does: along rows, rounded to 8 bits, then along columns, rounded again.
 *
 * <p>Rows are taken in from the top and resized along at once; of those only so many are kept as one row of the result
 * needs. Two rows go through the first pass together, one in each half of a long: a sum of weights times 8 bits stays
 * within 32, since no filter's weights, without their signs, add up to 2.
 */
final class Resampler {
    private static final int CHANNELS = 3;
    private static final int HALF = 1 << PassWeights.BITS - 1;
    private static final long BOTH_HALVES = (long) HALF << 32 | HALF;
    /** Rows that are read at once: as many of a picture that lies on its side share the lines of a cache. */
    private static final int BLOCK = 16;

    private final RgbRows source;
    private final PassWeights across;
    private final PassWeights down;
    private final int left;
    private final int columns;
    private final int[] block;
    private final long[] pair;
    private final int[][] kept;
    private int blockTop;
    private int blockEnd;

    private Resampler(RgbRows source, PassWeights across, PassWeights down) {
        this.source = source;
        this.across = across;
        this.down = down;
        left = across.first()[0];
        columns = across.end() - left;
        block = new int[Math.multiplyExact(columns, Math.min(BLOCK, source.height()))];
        pair = new long[columns * CHANNELS];
        kept = new int[down.taps() + 1][across.outputs() * CHANNELS]; // one more: rows come in twos
    }

    /** The pixels of {@code across} x {@code down}. */
    static RgbPixels resized(RgbRows source, PassWeights across, PassWeights down) {
        return new Resampler(source, across, down).run();
    }

    private RgbPixels run() {
        int rowSize = across.outputs() * CHANNELS;
        byte[] rgb = new byte[Math.multiplyExact(rowSize, down.outputs())];
        int[] sums = new int[rowSize];
        int next = 0;
        for (int y = 0; y < down.outputs(); y++) {
            for (next = Math.max(next, down.first()[y]); next < down.end(y); next += 2) {
                takeIn(next);
            }
            sumColumns(y, sums);
            for (int i = 0, to = y * rowSize; i < rowSize; i++) {
                rgb[to + i] = (byte) clamped(sums[i]);
            }
        }
        return new RgbPixels(across.outputs(), down.outputs(), rgb);
    }

    /** Resizes a row along, and the one below. */
    private void takeIn(int row) {
        int last = Math.min(row + 2, down.end());
        if (last > blockEnd) {
            blockTop = row;
            blockEnd = Math.min(row + BLOCK, down.end());
            source.read(left, row, columns, blockEnd - row, block);
        }
        int upper = (row - blockTop) * columns;
        pack(upper, last == row + 2 ? upper + columns : upper);
        sumRows(kept[row % kept.length], kept[(row + 1) % kept.length]);
    }

    /** Puts two rows of the block into {@code pair}, channel by channel, the lower row in the upper halves. */
    private void pack(int upper, int lower) {
        for (int x = 0, to = 0; x < columns; x++, to += CHANNELS) {
            int above = block[upper + x];
            int below = block[lower + x];
            pair[to] = (long) (below >> 16 & 0xFF) << 32 | above >> 16 & 0xFF;
            pair[to + 1] = (long) (below >> 8 & 0xFF) << 32 | above >> 8 & 0xFF;
            pair[to + 2] = (long) (below & 0xFF) << 32 | above & 0xFF;
        }
    }

    /** The first pass, of both rows in {@code pair}. */
    private void sumRows(int[] upper, int[] lower) {
        int[] weights = across.weights();
        long[] pixels = pair;
        for (int i = 0, to = 0; i < across.outputs(); i++, to += CHANNELS) {
            int weight = i * across.taps();
            int from = (across.first()[i] - left) * CHANNELS;
            long red = BOTH_HALVES;
            long green = BOTH_HALVES;
            long blue = BOTH_HALVES;
            for (int end = weight + across.counts()[i]; weight < end; weight++, from += CHANNELS) {
                long each = weights[weight];
                red += each * pixels[from];
                green += each * pixels[from + 1];
                blue += each * pixels[from + 2];
            }
            upper[to] = clamped((int) red);
            upper[to + 1] = clamped((int) green);
            upper[to + 2] = clamped((int) blue);
            lower[to] = clamped(upperHalf(red));
            lower[to + 1] = clamped(upperHalf(green));
            lower[to + 2] = clamped(upperHalf(blue));
        }
    }

    /** The second pass, of one row of the result. */
    private void sumColumns(int output, int[] sums) {
        Arrays.fill(sums, HALF);
        int row = down.first()[output];
        int weight = output * down.taps();
        int end = weight + down.counts()[output];
        int[] weights = down.weights();
        for (; weight + 2 <= end; weight += 2, row += 2) {
            add(sums, kept(row), weights[weight], kept(row + 1), weights[weight + 1]);
        }
        if (weight < end) {
            add(sums, kept(row), weights[weight], kept(row), 0);
        }
    }

    private int[] kept(int row) {
        return kept[row % kept.length];
    }

    private static void add(int[] sums, int[] first, int firstWeight, int[] second, int secondWeight) {
        for (int i = 0; i < sums.length; i++) {
            sums[i] += firstWeight * first[i] + secondWeight * second[i];
        }
    }

    /** What was summed up in the upper half, from which a negative lower half has borrowed. */
    private static int upperHalf(long sums) {
        return (int) (sums - (int) sums >> 32);
    }

    private static int clamped(int sum) {
        return Math.max(0, Math.min(255, sum >> PassWeights.BITS));
    }
}
