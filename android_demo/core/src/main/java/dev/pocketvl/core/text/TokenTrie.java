package dev.pocketvl.core.text;

/**
 * Finds all tokens that a text starts with: a sorted list, in which each byte of the text narrows a range.
 *
 * <p>It takes four bytes a token, where nodes and children would take hundreds.
 */
final class TokenTrie {
    private final Vocabulary vocabulary;
    private final int[] order;

    /** The first of {@link #order} by first byte, and the end. */
    private final int[] firsts = new int[257];

    TokenTrie(Vocabulary vocabulary) {
        this.vocabulary = vocabulary;
        order = sorted(vocabulary);
        int at = 0;
        for (int first = 0; first < 256; first++) {
            while (at < order.length && byteAt(order[at], 0) < first) {
                at++;
            }
            firsts[first] = at;
        }
        firsts[256] = order.length;
    }

    /** A look at what stands from an index on. */
    Cursor begin(byte[] bytes, int index) {
        return new Cursor(bytes, index);
    }

    /** Goes along a text, byte by byte, as long as tokens go with it. */
    final class Cursor {
        private final byte[] source;
        private final int start;
        private int depth;
        private int low;
        private int high;

        private Cursor(byte[] source, int start) {
            this.source = source;
            this.start = start;
        }

        /** Takes one more byte, and returns the id of the token that ends there, or {@link Vocabulary#NO_ID}. */
        int next() {
            int wanted = source[start + depth] & 0xFF;
            if (depth == 0) {
                low = firsts[wanted];
                high = firsts[wanted + 1];
            } else {
                int from = bound(low, high, wanted);
                high = bound(from, high, wanted + 1);
                low = from;
            }
            depth++;
            if (low == high) {
                return Vocabulary.NO_ID;
            }
            int entry = order[low]; // the shortest comes first
            boolean whole = vocabulary.end(entry) - vocabulary.start(entry) == depth;
            return whole ? vocabulary.id(entry) : Vocabulary.NO_ID;
        }

        /** Whether no longer token can follow. */
        boolean isExhausted() {
            return low == high;
        }

        /** The first entry of a range whose byte at the depth is not below a value. */
        private int bound(int from, int to, int value) {
            int first = from;
            int last = to;
            while (first < last) {
                int middle = (first + last) >>> 1;
                if (byteAt(order[middle], depth) < value) {
                    first = middle + 1;
                } else {
                    last = middle;
                }
            }
            return first;
        }
    }

    /** A byte of an entry, or -1 behind its end. */
    private int byteAt(int entry, int index) {
        int at = vocabulary.start(entry) + index;
        return at < vocabulary.end(entry) ? vocabulary.bytes()[at] & 0xFF : -1;
    }

    private static int[] sorted(Vocabulary vocabulary) {
        int[] order = new int[vocabulary.size()];
        for (int entry = 0; entry < order.length; entry++) {
            order[entry] = entry;
        }
        mergeSort(vocabulary, order, new int[order.length], 0, order.length);
        return order;
    }

    private static void mergeSort(Vocabulary vocabulary, int[] order, int[] spare, int from, int to) {
        if (to - from < 2) {
            return;
        }
        int middle = (from + to) >>> 1;
        mergeSort(vocabulary, order, spare, from, middle);
        mergeSort(vocabulary, order, spare, middle, to);
        System.arraycopy(order, from, spare, from, to - from);
        int left = from;
        int right = middle;
        for (int at = from; at < to; at++) {
            boolean takeLeft =
                    right == to || left < middle && compare(vocabulary, spare[left], spare[right]) <= 0;
            order[at] = takeLeft ? spare[left++] : spare[right++];
        }
    }

    private static int compare(Vocabulary vocabulary, int left, int right) {
        byte[] bytes = vocabulary.bytes();
        int leftAt = vocabulary.start(left);
        int rightAt = vocabulary.start(right);
        int leftLength = vocabulary.end(left) - leftAt;
        int rightLength = vocabulary.end(right) - rightAt;
        for (int index = 0; index < Math.min(leftLength, rightLength); index++) {
            int difference = (bytes[leftAt + index] & 0xFF) - (bytes[rightAt + index] & 0xFF);
            if (difference != 0) {
                return difference;
            }
        }
        return leftLength - rightLength;
    }
}
