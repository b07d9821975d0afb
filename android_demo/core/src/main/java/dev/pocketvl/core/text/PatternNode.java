package dev.pocketvl.core.text;

import java.util.List;
import java.util.function.IntPredicate;
import org.jspecify.annotations.Nullable;

/** A part of a regular expression, parsed. */
interface PatternNode {
    /** The fewest code points that it can match. */
    int least();

    /** How a repetition looks for its end. */
    enum Greed {
        GREEDY,
        LAZY,
        /** Never gives back what it took. */
        POSSESSIVE
    }

    /** A place of a text that matches without a character. */
    enum Place {
        TEXT_START,
        TEXT_END,
        LAST_LINE_END,
        LINE_START,
        LINE_END,
        WORD_EDGE,
        NO_WORD_EDGE
    }

    /** One code point. */
    record One(IntPredicate set) implements PatternNode {
        @Override
        public int least() {
            return 1;
        }
    }

    /** Parts, one after another. */
    record Chain(List<PatternNode> parts) implements PatternNode {
        @Override
        public int least() {
            int sum = 0;
            for (PatternNode part : parts) {
                sum += part.least();
            }
            return sum;
        }
    }

    /** The first of some parts that leads to a match. */
    record Choice(List<PatternNode> options) implements PatternNode {
        @Override
        public int least() {
            int least = Integer.MAX_VALUE;
            for (PatternNode option : options) {
                least = Math.min(least, option.least());
            }
            return least;
        }
    }

    /** A part, several times; {@code most} is {@link Integer#MAX_VALUE} without an upper limit. */
    record Repeat(PatternNode part, int fewest, int most, Greed greed) implements PatternNode {
        @Override
        public int least() {
            return part.least() * fewest;
        }
    }

    /** A part that is not entered again once it matched. */
    record Atomic(PatternNode part) implements PatternNode {
        @Override
        public int least() {
            return part.least();
        }
    }

    /** Whether a part matches (or, negative, does not) from here on. */
    record LookAhead(PatternNode part, boolean negative) implements PatternNode {
        @Override
        public int least() {
            return 0;
        }
    }

    /** Whether the code point before is (or, negative, is not) of a set. */
    record LookBehind(IntPredicate set, boolean negative) implements PatternNode {
        @Override
        public int least() {
            return 0;
        }
    }

    /** A place. */
    record At(Place place) implements PatternNode {
        @Override
        public int least() {
            return 0;
        }
    }

    /** The set of a part that matches exactly one code point, or null. */
    static @Nullable IntPredicate single(PatternNode node) {
        if (node instanceof One) {
            return ((One) node).set();
        }
        if (node instanceof Chain && ((Chain) node).parts().size() == 1) {
            return single(((Chain) node).parts().get(0));
        }
        if (node instanceof Choice) {
            IntPredicate all = codePoint -> false;
            for (PatternNode option : ((Choice) node).options()) {
                IntPredicate set = single(option);
                if (set == null) {
                    return null;
                }
                all = all.or(set);
            }
            return all;
        }
        return null;
    }
}
