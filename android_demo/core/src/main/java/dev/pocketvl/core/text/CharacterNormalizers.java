package dev.pocketvl.core.text;

import java.util.function.IntPredicate;

/** Normalizers that look at one code point at a time. */
final class CharacterNormalizers {
    private static final CodePointSet ACCENT = CodePointSet.unpack(UnicodeData.ACCENT);

    private CharacterNormalizers() {}

    static Normalizer lowercase() {
        return text -> text.with(lowerCase(text.text()));
    }

    static Normalizer stripAccents() {
        return text -> without(text, ACCENT::contains);
    }

    /** What the file calls Nmt: control characters go, and many white and invisible ones become spaces. */
    static Normalizer nmt() {
        return given -> {
            Normalizer.Normalized kept = without(given, CharacterNormalizers::isNmtControl);
            StringBuilder out = new StringBuilder(kept.text().length());
            for (int at = 0; at < kept.text().length(); at++) {
                char unit = kept.text().charAt(at);
                out.append(isNmtSpace(unit) ? ' ' : unit);
            }
            return kept.with(out.toString());
        };
    }

    private static boolean isNmtControl(int codePoint) {
        return codePoint >= 0x01 && codePoint <= 0x08
                || codePoint == 0x0B
                || codePoint >= 0x0E && codePoint <= 0x1F
                || codePoint == 0x7F
                || codePoint == 0x8F
                || codePoint == 0x9F;
    }

    private static boolean isNmtSpace(char unit) {
        return unit >= 0x200B && unit <= 0x200F
                || "\t\n\f\r\u1680\u2028\u2029\u2581\uFEFF\uFFFD".indexOf(unit) >= 0;
    }

    static Normalizer prepend(String prefix) {
        return text -> text.text().isEmpty() ? text : text.with(prefix + text.text());
    }

    static Normalizer byteLevel() {
        return text -> text.with(ByteLevel.letters(text.text()));
    }

    static Normalizer strip(boolean left, boolean right) {
        return text -> {
            String whole = text.text();
            int start = left ? CharacterSets.skipWhiteSpace(whole, 0) : 0;
            int end = right ? CharacterSets.skipWhiteSpaceBefore(whole, whole.length()) : whole.length();
            return new Normalizer.Normalized(whole.substring(start, Math.max(start, end)), text.atStart() && start == 0);
        };
    }

    static String lowerCase(String text) {
        StringBuilder out = new StringBuilder(text.length());
        for (int at = 0; at < text.length(); ) {
            int codePoint = text.codePointAt(at);
            LowerCase.append(out, codePoint);
            at += Character.charCount(codePoint);
        }
        return out.toString();
    }

    /** A text without the code points of a set. */
    static Normalizer.Normalized without(Normalizer.Normalized text, IntPredicate removed) {
        String whole = text.text();
        StringBuilder out = new StringBuilder(whole.length());
        boolean firstKept = true;
        for (int at = 0; at < whole.length(); ) {
            int codePoint = whole.codePointAt(at);
            if (!removed.test(codePoint)) {
                out.appendCodePoint(codePoint);
            } else if (out.length() == 0) {
                firstKept = false;
            }
            at += Character.charCount(codePoint);
        }
        return new Normalizer.Normalized(out.toString(), text.atStart() && firstKept);
    }
}
