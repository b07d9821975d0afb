package dev.pocketvl.core.text;

import java.util.Arrays;

/**
 * Ids of tokens, found by the tokens' UTF-8.
 *
 * <p>One array holds all bytes: a map of strings would take ten times the memory for 256,000 tokens.
 */
final class Vocabulary {
    static final int NO_ID = -1;

    private static final int HASH_START = 0x811C9DC5;
    private static final int HASH_FACTOR = 0x01000193;

    private final TokenBytes scratch = new TokenBytes();

    private byte[] bytes = new byte[1 << 12];
    private int[] ends = new int[1 << 8];
    private int[] ids = new int[1 << 8];
    private int count;
    private int longest;

    /** Entries by hash, each one more than its number; 0 where none is. */
    private int[] slots = new int[1 << 9];

    /** How many different tokens it holds. */
    int size() {
        return count;
    }

    /** How many bytes its longest token has. */
    int longest() {
        return longest;
    }

    /** Where an entry starts in {@link #bytes()}. */
    int start(int entry) {
        return entry == 0 ? 0 : ends[entry - 1];
    }

    /** Where an entry ends in {@link #bytes()}. */
    int end(int entry) {
        return ends[entry];
    }

    int id(int entry) {
        return ids[entry];
    }

    /** All tokens, one after another, in the order in which they were put. */
    byte[] bytes() {
        return bytes;
    }

    /** Sets the id of a token, and returns the one that it had, or {@link #NO_ID}. */
    int put(String token, int id) {
        scratch.clear();
        scratch.append(token);
        int length = scratch.length();
        int hash = hash(scratch.array(), 0, length, HASH_START);
        int slot = slot(hash, scratch.array(), 0, length);
        if (slots[slot] != 0) {
            int entry = slots[slot] - 1;
            int before = ids[entry];
            ids[entry] = id;
            return before;
        }
        append(scratch.array(), length, id);
        slots[slot] = count;
        if (2 * count > slots.length) {
            grow();
        }
        return NO_ID;
    }

    /** The id of a token, or {@link #NO_ID}. */
    int find(String token) {
        TokenBytes buffer = new TokenBytes();
        buffer.append(token);
        return find(buffer.array(), 0, buffer.length());
    }

    /** The id of the token that stands in a part of an array, or {@link #NO_ID}. */
    int find(byte[] source, int start, int end) {
        return find(hash(source, start, end, HASH_START), source, start, end);
    }

    /** The same, of a part whose hash is known. */
    int find(int hash, byte[] source, int start, int end) {
        int found = slots[slot(hash, source, start, end)];
        return found == 0 ? NO_ID : ids[found - 1];
    }

    /** The hash of nothing, to be continued by {@link #hash}. */
    static int hashStart() {
        return HASH_START;
    }

    /** Continues a hash. */
    static int hash(byte[] source, int start, int end, int hash) {
        int value = hash;
        for (int index = start; index < end; index++) {
            value = (value ^ source[index] & 0xFF) * HASH_FACTOR;
        }
        return value;
    }

    /** Gives back what was reserved for more tokens. */
    void trim() {
        bytes = Arrays.copyOf(bytes, count == 0 ? 0 : ends[count - 1]);
        ends = Arrays.copyOf(ends, count);
        ids = Arrays.copyOf(ids, count);
    }

    /** The slot of an entry, or the empty one where it would stand. */
    private int slot(int hash, byte[] source, int start, int end) {
        int mask = slots.length - 1;
        int slot = mixed(hash) & mask;
        while (slots[slot] != 0 && !isAt(slots[slot] - 1, source, start, end)) {
            slot = slot + 1 & mask;
        }
        return slot;
    }

    private boolean isAt(int entry, byte[] source, int start, int end) {
        int from = start(entry);
        if (ends[entry] - from != end - start) {
            return false;
        }
        for (int index = start; index < end; index++) {
            if (bytes[from + index - start] != source[index]) {
                return false;
            }
        }
        return true;
    }

    private void append(byte[] source, int length, int id) {
        int start = count == 0 ? 0 : ends[count - 1];
        if (start + length > bytes.length) {
            bytes = Arrays.copyOf(bytes, Math.max(start + length, bytes.length + (bytes.length >> 1)));
        }
        System.arraycopy(source, 0, bytes, start, length);
        if (count == ids.length) {
            ends = Arrays.copyOf(ends, count + (count >> 1));
            ids = Arrays.copyOf(ids, count + (count >> 1));
        }
        ends[count] = start + length;
        ids[count++] = id;
        longest = Math.max(longest, length);
    }

    private void grow() {
        slots = new int[2 * slots.length];
        int mask = slots.length - 1;
        for (int entry = 0; entry < count; entry++) {
            int slot = mixed(hash(bytes, start(entry), ends[entry], HASH_START)) & mask;
            while (slots[slot] != 0) {
                slot = slot + 1 & mask;
            }
            slots[slot] = entry + 1;
        }
    }

    private static int mixed(int hash) {
        return hash ^ hash >>> 15;
    }
}
