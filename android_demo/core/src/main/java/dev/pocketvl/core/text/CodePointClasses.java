package dev.pocketvl.core.text;

import java.util.Arrays;

/** A class for each code point, like its general category. */
final class CodePointClasses {
    private final int[] starts;
    private final byte[] classes;

    private CodePointClasses(int[] starts, byte[] classes) {
        this.starts = starts;
        this.classes = classes;
    }

    /** The table of a constant of {@link UnicodeData}: lengths and classes by turns. */
    static CodePointClasses unpack(String packed) {
        int[] numbers = PackedNumbers.unpack(packed);
        int[] starts = new int[numbers.length / 2];
        byte[] classes = new byte[starts.length];
        int start = 0;
        for (int index = 0; index < starts.length; index++) {
            starts[index] = start;
            start += numbers[2 * index];
            classes[index] = (byte) numbers[2 * index + 1];
        }
        return new CodePointClasses(starts, classes);
    }

    int of(int codePoint) {
        int found = Arrays.binarySearch(starts, codePoint);
        return classes[found >= 0 ? found : -found - 2];
    }

    /** First code points by turns in and out of the classes with a true flag. */
    int[] edges(boolean[] flags) {
        int[] edges = new int[starts.length];
        int count = 0;
        boolean inside = false;
        for (int index = 0; index < starts.length; index++) {
            if (flags[classes[index]] != inside) {
                edges[count++] = starts[index];
                inside = !inside;
            }
        }
        return Arrays.copyOf(edges, count);
    }
}
