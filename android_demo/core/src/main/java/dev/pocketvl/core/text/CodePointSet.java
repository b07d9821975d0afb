package dev.pocketvl.core.text;

import java.util.Arrays;

/** An immutable set of code points. */
final class CodePointSet {
    private static final int QUICK = 0x800;

    /** First code points by turns in and out of the set, ascending. */
    private final int[] edges;

    private final boolean[] quick = new boolean[QUICK];

    private CodePointSet(int[] edges) {
        this.edges = edges;
        for (int codePoint = 0; codePoint < QUICK; codePoint++) {
            quick[codePoint] = search(codePoint);
        }
    }

    /** The set of a constant of {@link UnicodeData}. */
    static CodePointSet unpack(String packed) {
        int[] edges = PackedNumbers.unpack(packed);
        for (int index = 1; index < edges.length; index++) {
            edges[index] += edges[index - 1];
        }
        return new CodePointSet(edges);
    }

    /** The set of the code points between two, both included. */
    static CodePointSet range(int first, int last) {
        return new CodePointSet(new int[] {first, last + 1});
    }

    /** The set of the code points of which a table has a class with a true flag. */
    static CodePointSet ofClasses(CodePointClasses table, boolean[] flags) {
        return new CodePointSet(table.edges(flags));
    }

    boolean contains(int codePoint) {
        return codePoint < QUICK ? quick[codePoint] : search(codePoint);
    }

    private boolean search(int codePoint) {
        int found = Arrays.binarySearch(edges, codePoint);
        return found % 2 == 0; // not found: -(edges up to it) - 1, which is even where these are odd
    }
}
