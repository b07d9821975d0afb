package dev.pocketvl.core.text;

import java.util.Arrays;

/** A growing list of integers. */
final class IntList {
    private int[] items = new int[32];
    private int size;

    int size() {
        return size;
    }

    int get(int index) {
        return items[index];
    }

    void add(int item) {
        if (size == items.length) {
            items = Arrays.copyOf(items, 2 * size);
        }
        items[size++] = item;
    }

    /** A copy of some of its items. */
    int[] slice(int start, int end) {
        return Arrays.copyOfRange(items, start, end);
    }
}
