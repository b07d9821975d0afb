package dev.pocketvl.core.text;

import java.util.Arrays;

/** A text cut into neighbours: what matched and what stands between. */
final class Spans {
    private int[] ends = new int[16];
    private boolean[] matches = new boolean[16];
    private int count;

    int count() {
        return count;
    }

    int start(int index) {
        return index == 0 ? 0 : ends[index - 1];
    }

    int end(int index) {
        return ends[index];
    }

    boolean isMatch(int index) {
        return matches[index];
    }

    /** Adds a match, and before it what was skipped. A match may be empty. */
    void addMatch(int start, int end) {
        fillTo(start);
        add(end, true);
    }

    /** Adds what stands up to an index behind the last match, if anything does. */
    void fillTo(int end) {
        if (end != lastEnd()) {
            add(end, false);
        }
    }

    /** The same spans, with matches and what stands between exchanged. */
    Spans inverted() {
        Spans spans = new Spans();
        for (int index = 0; index < count; index++) {
            spans.add(ends[index], !matches[index]);
        }
        return spans;
    }

    private int lastEnd() {
        return count == 0 ? 0 : ends[count - 1];
    }

    private void add(int end, boolean match) {
        if (count == ends.length) {
            ends = Arrays.copyOf(ends, 2 * count);
            matches = Arrays.copyOf(matches, 2 * count);
        }
        ends[count] = end;
        matches[count++] = match;
    }
}
