package dev.pocketvl.core.errors;

import java.util.Locale;

/** What messages quote out of files: never more than a line of it. */
public final class Quoted {
    private static final int MOST_CHARS = 100;

    private Quoted() {}

    /** A text of at most {@code most} characters: cut in the middle, since what to do about it stands at the end. */
    public static String shortened(String text, int most) {
        if (text.length() <= most) {
            return text;
        }
        int tail = (most - 1) / 2;
        return text.substring(0, most - 1 - tail) + "\u2026" + text.substring(text.length() - tail);
    }

    /** A name or text in quotation marks, control characters escaped, at most 100 characters of it. */
    public static String quoted(String text) {
        StringBuilder made = new StringBuilder("'");
        shortened(text, MOST_CHARS).chars().forEach(c -> {
            if (Character.isISOControl(c) || Character.isSurrogate((char) c)) {
                made.append(String.format(Locale.ROOT, "\\u%04x", c));
            } else {
                made.append((char) c);
            }
        });
        return shortened(made.append("'").toString(), MOST_CHARS);
    }
}
