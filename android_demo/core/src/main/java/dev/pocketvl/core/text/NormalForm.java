package dev.pocketvl.core.text;

import java.text.Normalizer.Form;

/**
 * Unicode's normal forms, as of Unicode 9.
 *
 * <p>Forms of what Unicode 9 knows never change, so the platform's normalizer serves for it (Android 8 has Unicode 9).
 * What came later must stay as it is: it takes part in nothing, so the text is cut there.
 */
final class NormalForm implements Normalizer {
    private static final CodePointSet INERT = CodePointSet.unpack(UnicodeData.INERT);

    private final Form form;

    NormalForm(Form form) {
        this.form = form;
    }

    @Override
    public Normalized normalize(Normalized text) {
        return text.with(apply(text.text(), form));
    }

    static String apply(String text, Form form) {
        StringBuilder out = new StringBuilder(text.length());
        int start = 0;
        for (int at = 0; at < text.length(); ) {
            int codePoint = text.codePointAt(at);
            int end = at + Character.charCount(codePoint);
            if (INERT.contains(codePoint)) {
                out.append(java.text.Normalizer.normalize(text.substring(start, at), form));
                out.appendCodePoint(codePoint);
                start = end;
            }
            at = end;
        }
        out.append(java.text.Normalizer.normalize(text.substring(start), form));
        return out.toString();
    }
}
