package dev.pocketvl.core.text;

import java.util.Arrays;

/** Numbers as the constants of {@link UnicodeData} hold them: groups of five bits, low ones first. */
final class PackedNumbers {
    private static final int DATA = 31;
    private static final int MORE = 32;

    private PackedNumbers() {}

    static int[] unpack(String packed) {
        int[] numbers = new int[packed.length()];
        int count = 0;
        int number = 0;
        int shift = 0;
        for (int index = 0; index < packed.length(); index++) {
            int symbol = value(packed.charAt(index));
            number |= (symbol & DATA) << shift;
            shift += 5;
            if ((symbol & MORE) == 0) {
                numbers[count++] = number;
                number = 0;
                shift = 0;
            }
        }
        return Arrays.copyOf(numbers, count);
    }

    private static int value(char symbol) {
        if (symbol >= 'a') {
            return symbol - 'a' + 26;
        }
        if (symbol >= 'A') {
            return symbol - 'A';
        }
        return symbol == '+' ? 62 : symbol == '-' ? 63 : symbol - '0' + 52;
    }
}
