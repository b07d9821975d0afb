package dev.pocketvl.core.text;

import dev.pocketvl.core.text.TokenizerSettings.Canonicalize;
import java.util.List;

/** What is done to a text before it is tokenized, equal to Python's own string methods. */
final class Canonicalization {
    private static final int CAPITAL_SIGMA = 0x3A3;
    private static final char FINAL_SIGMA = '\u03C2';
    private static final String MARKS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

    private static final CodePointSet CASED = CodePointSet.unpack(UnicodeData.CASED);
    private static final CodePointSet CASE_IGNORABLE = CodePointSet.unpack(UnicodeData.CASE_IGNORABLE);

    private Canonicalization() {}

    static String apply(String given, List<Canonicalize> steps) {
        String text = given;
        for (Canonicalize step : steps) {
            switch (step) {
                case LOWER:
                    text = lowerCase(text);
                    break;
                case STRIP_PUNCTUATION:
                    text = withoutMarks(text);
                    break;
                default:
                    text = withSingleSpaces(text);
                    break;
            }
        }
        return text;
    }

    /** Whether a text is empty, or white space alone. */
    static boolean isBlank(String text) {
        for (int at = 0; at < text.length(); at++) {
            if (!isSpace(text.charAt(at))) {
                return false;
            }
        }
        return true;
    }

    /** Python counts four control characters, which separate files, groups, records and units, as white space. */
    private static boolean isSpace(char unit) {
        return unit >= 0x1C && unit <= 0x1F || CharacterSets.WHITE_SPACE.contains(unit);
    }

    private static String lowerCase(String text) {
        StringBuilder out = new StringBuilder(text.length());
        for (int at = 0; at < text.length(); ) {
            int codePoint = text.codePointAt(at);
            int next = at + Character.charCount(codePoint);
            if (codePoint == CAPITAL_SIGMA && endsWord(text, at, next)) {
                out.append(FINAL_SIGMA);
            } else {
                LowerCase.append(out, codePoint);
            }
            at = next;
        }
        return out.toString();
    }

    /** Whether a letter stands before a place, and none behind it, where marks and the like do not count. */
    private static boolean endsWord(String text, int start, int end) {
        int before = start;
        while (before > 0 && CASE_IGNORABLE.contains(text.codePointBefore(before))) {
            before -= Character.charCount(text.codePointBefore(before));
        }
        if (before == 0 || !CASED.contains(text.codePointBefore(before))) {
            return false;
        }
        int after = end;
        while (after < text.length() && CASE_IGNORABLE.contains(text.codePointAt(after))) {
            after += Character.charCount(text.codePointAt(after));
        }
        return after == text.length() || !CASED.contains(text.codePointAt(after));
    }

    private static String withoutMarks(String text) {
        StringBuilder out = new StringBuilder(text.length());
        for (int at = 0; at < text.length(); at++) {
            if (MARKS.indexOf(text.charAt(at)) < 0) {
                out.append(text.charAt(at));
            }
        }
        return out.toString();
    }

    private static String withSingleSpaces(String text) {
        StringBuilder out = new StringBuilder(text.length());
        boolean pending = false;
        for (int at = 0; at < text.length(); at++) {
            char unit = text.charAt(at);
            if (isSpace(unit)) {
                pending = out.length() > 0;
            } else {
                if (pending) {
                    out.append(' ');
                    pending = false;
                }
                out.append(unit);
            }
        }
        return out.toString();
    }
}
