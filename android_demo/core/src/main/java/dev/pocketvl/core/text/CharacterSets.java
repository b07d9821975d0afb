package dev.pocketvl.core.text;

/** Sets of code points as the parts of the tokenizers library have them. */
final class CharacterSets {
    static final CodePointSet WHITE_SPACE = CodePointSet.unpack(UnicodeData.WHITE_SPACE);
    static final CodePointSet WORD = CodePointSet.unpack(UnicodeData.WORD);

    private CharacterSets() {}

    /** The end of the white space that starts at an index of a text. */
    static int skipWhiteSpace(String text, int start) {
        int end = start;
        while (end < text.length()) {
            int codePoint = text.codePointAt(end);
            if (!WHITE_SPACE.contains(codePoint)) {
                break;
            }
            end += Character.charCount(codePoint);
        }
        return end;
    }

    /** The start of the white space that ends at an index of a text. */
    static int skipWhiteSpaceBefore(String text, int end) {
        int start = end;
        while (start > 0) {
            int codePoint = text.codePointBefore(start);
            if (!WHITE_SPACE.contains(codePoint)) {
                break;
            }
            start -= Character.charCount(codePoint);
        }
        return start;
    }
}
