package dev.pocketvl.core.text;

import java.util.List;

/**
 * A part of a text on its way to ids.
 *
 * @param text of the part, never empty
 * @param id of the added token that it is, or {@link #NO_ID}
 * @param atStart whether its first character stems from the first of the whole text
 */
record Piece(String text, int id, boolean atStart) {
    static final int NO_ID = -1;

    /** A part that a model is to tokenize. */
    static Piece of(String text, boolean atStart) {
        return new Piece(text, NO_ID, atStart);
    }

    boolean isToken() {
        return id != NO_ID;
    }

    /** Adds what stands between two indices of it, unless that is empty. */
    void addPart(int start, int end, List<Piece> pieces) {
        if (start < end) {
            pieces.add(of(text.substring(start, end), atStart && start == 0));
        }
    }
}
