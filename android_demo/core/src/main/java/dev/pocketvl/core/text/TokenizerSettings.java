package dev.pocketvl.core.text;

import java.util.List;

/**
 * What a manifest says of a tokenizer, beside its file.
 *
 * @param maxLength tokens that the model reads, special tokens included
 * @param padId fills up what is shorter
 * @param padSide where padding stands
 * @param truncate the end at which tokens of the text are cut
 * @param canonicalize what is done to a text before it is tokenized, in order
 */
public record TokenizerSettings(
        int maxLength, int padId, Side padSide, Side truncate, List<Canonicalize> canonicalize) {

    /** An end of a text. */
    public enum Side {
        LEFT,
        RIGHT
    }

    /** A step of canonicalisation. */
    public enum Canonicalize {
        /** Unicode's full lower case, without a locale. */
        LOWER,
        /** Takes out the 32 marks of ASCII. */
        STRIP_PUNCTUATION,
        /** Each run of white space becomes one space; none stays at the ends. */
        COLLAPSE_SPACES
    }
}
