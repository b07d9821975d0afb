package dev.pocketvl.core.text;

import java.util.Arrays;

/** One word while its tokens are merged: a linked list of tokens, and a heap of the merges that are possible. */
final class MergedWord {
    private static final int NONE = -1;

    private final MergeTable merges;
    private final int[] ids;
    private final int[] before;
    private final int[] after;
    private final boolean[] gone;

    /** A min-heap of rank and index of the left token, packed into one number. */
    private long[] heap;

    private int heapSize;

    MergedWord(IntList tokens, MergeTable merges) {
        this.merges = merges;
        int count = tokens.size();
        ids = tokens.slice(0, count);
        before = new int[count];
        after = new int[count];
        gone = new boolean[count];
        heap = new long[Math.max(4, count)];
        for (int index = 0; index < count; index++) {
            before[index] = index - 1;
            after[index] = index + 1 < count ? index + 1 : NONE;
        }
        for (int index = 0; index + 1 < count; index++) {
            offer(index);
        }
        mergeAll();
    }

    /** Appends what is left after all merges. */
    void appendTo(IntList out) {
        for (int index = 0; index < ids.length; index++) {
            if (!gone[index]) {
                out.add(ids[index]);
            }
        }
    }

    private void mergeAll() {
        while (heapSize > 0) {
            long top = poll();
            int left = (int) top;
            int right = after[left];
            if (gone[left] || right == NONE) {
                continue;
            }
            int wanted = merges.merged((int) (top >>> 32));
            int rank = merges.rank(ids[left], ids[right]);
            if (rank == MergeTable.NO_RANK || merges.merged(rank) != wanted) {
                continue; // its tokens have been merged with others
            }
            ids[left] = wanted;
            gone[right] = true;
            after[left] = after[right];
            if (after[left] != NONE) {
                before[after[left]] = left;
            }
            if (before[left] != NONE) {
                offer(before[left]);
            }
            offer(left);
        }
    }

    /** Puts the merge of a token and the next one onto the heap, if there is one. */
    private void offer(int left) {
        int right = after[left];
        int rank = right == NONE ? MergeTable.NO_RANK : merges.rank(ids[left], ids[right]);
        if (rank == MergeTable.NO_RANK) {
            return;
        }
        if (heapSize == heap.length) {
            heap = Arrays.copyOf(heap, 2 * heapSize);
        }
        long item = (long) rank << 32 | left;
        int at = heapSize++;
        while (at > 0 && heap[(at - 1) / 2] > item) {
            heap[at] = heap[(at - 1) / 2];
            at = (at - 1) / 2;
        }
        heap[at] = item;
    }

    private long poll() {
        long top = heap[0];
        long last = heap[--heapSize];
        int at = 0;
        while (2 * at + 1 < heapSize) {
            int child = 2 * at + 1;
            if (child + 1 < heapSize && heap[child + 1] < heap[child]) {
                child++;
            }
            if (heap[child] >= last) {
                break;
            }
            heap[at] = heap[child];
            at = child;
        }
        heap[at] = last;
        return top;
    }
}
