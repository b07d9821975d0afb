package dev.pocketvl.core.text;

import dev.pocketvl.core.errors.InputException;

/** Rewrites a text before it is split. */
interface Normalizer {
    /** No text may grow beyond that many UTF-16 units. */
    int MOST_CHARS = 4_000_000;

    /** The rewritten text. */
    Normalized normalize(Normalized text);

    /**
     * A text, rewritten.
     *
     * @param text what became of it
     * @param atStart whether its first character stems from the first of the text that came in
     */
    record Normalized(String text, boolean atStart) {
        /** The same beginning with another text. */
        Normalized with(String changed) {
            return new Normalized(changed, atStart);
        }
    }

    /**
     * Checks a text that a normalizer has grown.
     *
     * @throws InputException it is too long
     */
    static void checkLength(int chars) {
        if (chars > MOST_CHARS) {
            throw new InputException("the text becomes longer than " + MOST_CHARS + " characters; shorten it");
        }
    }
}
