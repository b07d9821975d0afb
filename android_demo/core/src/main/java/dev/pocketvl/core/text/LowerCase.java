package dev.pocketvl.core.text;

import java.util.Arrays;

/** Lower case of single code points. */
final class LowerCase {
    private static final int CAPITAL_I_WITH_DOT = 0x130;
    private static final String SMALL_I_AND_DOT = "i\u0307";

    private static final int[] STARTS;
    private static final int[] COUNTS;
    private static final int[] STEPS;
    private static final int[] ADDED;

    static {
        int[] numbers = PackedNumbers.unpack(UnicodeData.LOWER_CASE);
        int runs = numbers.length / 4;
        STARTS = new int[runs];
        COUNTS = new int[runs];
        STEPS = new int[runs];
        ADDED = new int[runs];
        int end = 0;
        for (int run = 0; run < runs; run++) {
            STARTS[run] = end + numbers[4 * run];
            COUNTS[run] = numbers[4 * run + 1];
            STEPS[run] = numbers[4 * run + 2];
            int zigzag = numbers[4 * run + 3];
            ADDED[run] = (zigzag >>> 1) ^ -(zigzag & 1);
            end = STARTS[run] + (COUNTS[run] - 1) * STEPS[run];
        }
    }

    private LowerCase() {}

    /** Appends the lower case of a code point, which is two of them for U+0130 only. */
    static void append(StringBuilder out, int codePoint) {
        if (codePoint == CAPITAL_I_WITH_DOT) {
            out.append(SMALL_I_AND_DOT);
        } else {
            out.appendCodePoint(of(codePoint));
        }
    }

    private static int of(int codePoint) {
        if (codePoint < 0x80) {
            return codePoint >= 'A' && codePoint <= 'Z' ? codePoint + 32 : codePoint;
        }
        int found = Arrays.binarySearch(STARTS, codePoint);
        int run = found >= 0 ? found : -found - 2;
        if (run < 0) {
            return codePoint;
        }
        int distance = codePoint - STARTS[run];
        boolean inside = distance % STEPS[run] == 0 && distance / STEPS[run] < COUNTS[run];
        return inside ? codePoint + ADDED[run] : codePoint;
    }
}
