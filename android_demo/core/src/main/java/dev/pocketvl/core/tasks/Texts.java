package dev.pocketvl.core.tasks;

import dev.pocketvl.core.errors.InputException;
import java.util.List;

/** Checks of texts that need no tokenizer. */
final class Texts {
    private static final int MAX_CHARS = 250_000;

    private Texts() {}

    /** Refuses an empty list, and what {@link #check(String, String)} refuses of its items. */
    static void check(String what, List<String> texts) {
        if (texts.isEmpty()) {
            throw new InputException("at least one " + what + " is needed");
        }
        for (int i = 0; i < texts.size(); i++) {
            check(what + " " + i, texts.get(i));
        }
    }

    /**
     * Refuses a text that is blank, too long, or holds half a surrogate pair.
     *
     * @param what to call it in messages
     */
    static void check(String what, String text) {
        int length = text.codePointCount(0, text.length());
        if (length > MAX_CHARS) {
            throw new InputException(
                    what + " has " + length + " characters, and at most " + MAX_CHARS + " are read");
        }
        if (text.codePoints().anyMatch(c -> c >= Character.MIN_SURROGATE && c <= Character.MAX_SURROGATE)) {
            throw new InputException(what + " is not valid Unicode (half a surrogate pair); give another one");
        }
        if (text.codePoints().allMatch(c -> Character.isWhitespace(c) || Character.isSpaceChar(c))) {
            throw new InputException(what + " is empty");
        }
    }
}
