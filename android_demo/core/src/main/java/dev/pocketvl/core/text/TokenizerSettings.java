package dev.pocketvl.core.text;

import java.util.List;

/**
 * How a text becomes ids, beside its tokenizer.json; a manifest's processor of kind {@code tokenizers}. Names are the
 * manifest's, in capitals.
 *
 * @param maxLength tokens of every text, padding and specials included
 * @param padId fills a short text up
 * @param padSide at which end it does
 * @param truncate the end at which a long text is cut; specials are kept
 * @param canonicalize what is done to the text first, in order
 */
public record TokenizerSettings(
        int maxLength, int padId, Side padSide, Side truncate, List<Canonicalize> canonicalize) {
    public TokenizerSettings {
        canonicalize = List.copyOf(canonicalize);
    }

    /** An end of a text. */
    public enum Side {
        LEFT,
        RIGHT
    }

    /** What is done to a text before it is tokenized. */
    public enum Canonicalize {
        LOWER,
        STRIP_PUNCTUATION,
        COLLAPSE_SPACES
    }
}
