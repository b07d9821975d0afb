package dev.pocketvl.core.text;

import java.text.Normalizer.Form;

/**
 * What BERT does to a text.
 *
 * @param cleanText takes out control characters and makes all white space plain spaces
 * @param spaceIdeographs puts spaces around Chinese characters
 * @param stripAccents decomposes and takes out the marks
 * @param lowercase at the end
 */
record BertNormalizer(boolean cleanText, boolean spaceIdeographs, boolean stripAccents, boolean lowercase)
        implements Normalizer {
    private static final CodePointSet CONTROL = CodePointSet.unpack(UnicodeData.BERT_CONTROL);
    private static final CodePointSet ACCENT = CodePointSet.unpack(UnicodeData.BERT_ACCENT);

    @Override
    public Normalized normalize(Normalized given) {
        Normalized text = given;
        if (cleanText) {
            Normalized kept = CharacterNormalizers.without(text, CONTROL::contains);
            text = kept.with(plainSpaces(kept.text()));
        }
        if (spaceIdeographs) {
            text = text.with(spaced(text.text()));
        }
        if (stripAccents) {
            Normalized decomposed = text.with(NormalForm.apply(text.text(), Form.NFD));
            text = CharacterNormalizers.without(decomposed, ACCENT::contains);
        }
        return lowercase ? text.with(CharacterNormalizers.lowerCase(text.text())) : text;
    }

    private static String plainSpaces(String text) {
        StringBuilder out = new StringBuilder(text.length());
        for (int at = 0; at < text.length(); at++) {
            char unit = text.charAt(at); // no white space lies beyond the first plane
            out.append(CharacterSets.WHITE_SPACE.contains(unit) ? ' ' : unit);
        }
        return out.toString();
    }

    private static String spaced(String text) {
        StringBuilder out = new StringBuilder(text.length());
        for (int at = 0; at < text.length(); ) {
            int codePoint = text.codePointAt(at);
            if (isIdeograph(codePoint)) {
                out.append(' ').appendCodePoint(codePoint).append(' ');
            } else {
                out.appendCodePoint(codePoint);
            }
            at += Character.charCount(codePoint);
        }
        return out.toString();
    }

    /** The blocks that the library counts; U+2B820 to U+2B91F are missing there too. */
    private static boolean isIdeograph(int codePoint) {
        return between(codePoint, 0x4E00, 0x9FFF)
                || between(codePoint, 0x3400, 0x4DBF)
                || between(codePoint, 0x20000, 0x2A6DF)
                || between(codePoint, 0x2A700, 0x2B81F)
                || between(codePoint, 0x2B920, 0x2CEAF)
                || between(codePoint, 0xF900, 0xFAFF)
                || between(codePoint, 0x2F800, 0x2FA1F);
    }

    private static boolean between(int codePoint, int first, int last) {
        return first <= codePoint && codePoint <= last;
    }
}
