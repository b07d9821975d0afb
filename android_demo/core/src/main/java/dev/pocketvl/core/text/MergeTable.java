package dev.pocketvl.core.text;

import java.util.Arrays;

/** Which pairs of tokens byte pair encoding merges, in which order, and into what. */
final class MergeTable {
    static final int NO_RANK = -1;

    private static final long EMPTY = -1;

    private long[] pairs = new long[1 << 9];
    private int[] ranks = new int[1 << 9];
    private int[] merged = new int[1 << 8];
    private int count;
    private int held;

    MergeTable() {
        Arrays.fill(pairs, EMPTY);
    }

    /** Adds the next merge; one of the same pair loses its rank. */
    void add(int left, int right, int id) {
        if (2 * (held + 1) > pairs.length) {
            grow();
        }
        if (count == merged.length) {
            merged = Arrays.copyOf(merged, count + (count >> 1));
        }
        merged[count] = id;
        put(pair(left, right), count++);
    }

    /** The rank of a pair, 0 for what is merged first, or {@link #NO_RANK}. */
    int rank(int left, int right) {
        long pair = pair(left, right);
        int slot = slot(pair);
        return pairs[slot] == EMPTY ? NO_RANK : ranks[slot];
    }

    /** What a merge makes of its pair. */
    int merged(int rank) {
        return merged[rank];
    }

    /** Gives back what was reserved for more merges. */
    void trim() {
        merged = Arrays.copyOf(merged, count);
    }

    private void put(long pair, int rank) {
        int slot = slot(pair);
        held += pairs[slot] == EMPTY ? 1 : 0;
        pairs[slot] = pair;
        ranks[slot] = rank;
    }

    private int slot(long pair) {
        int mask = pairs.length - 1;
        long product = pair * 0x9E3779B97F4A7C15L;
        int slot = (int) (product ^ product >>> 32) & mask;
        while (pairs[slot] != EMPTY && pairs[slot] != pair) {
            slot = slot + 1 & mask;
        }
        return slot;
    }

    private void grow() {
        long[] oldPairs = pairs;
        int[] oldRanks = ranks;
        pairs = new long[2 * oldPairs.length];
        ranks = new int[2 * oldPairs.length];
        Arrays.fill(pairs, EMPTY);
        held = 0;
        for (int slot = 0; slot < oldPairs.length; slot++) {
            if (oldPairs[slot] != EMPTY) {
                put(oldPairs[slot], oldRanks[slot]);
            }
        }
    }

    private static long pair(int left, int right) {
        return (long) left << 32 | right;
    }
}
