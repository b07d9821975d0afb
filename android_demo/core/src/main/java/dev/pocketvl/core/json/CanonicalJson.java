package dev.pocketvl.core.json;

import dev.pocketvl.core.errors.BundleException;
import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.Comparator;
import java.util.Iterator;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * The one form of a JSON value that checksums are of: keys sorted by code points, no white space, numbers as they were
 * written, in strings only what must be escaped.
 */
public final class CanonicalJson {
    private static final Comparator<String> BY_CODE_POINTS = CanonicalJson::compareCodePoints;

    private CanonicalJson() {}

    /** The text of what {@link StrictJson} gave. */
    public static String text(@Nullable Object value) {
        StringBuilder made = new StringBuilder();
        write(value, made);
        return made.toString();
    }

    /**
     * SHA-256 of that text in UTF-8, in lower-case hex digits.
     *
     * @throws BundleException a string holds half a surrogate pair, which UTF-8 has not
     */
    public static String sha256(@Nullable Object value) {
        try {
            ByteBuffer encoded = StandardCharsets.UTF_8.newEncoder().encode(CharBuffer.wrap(text(value)));
            MessageDigest digest = Sha256.digest();
            digest.update(encoded);
            return Sha256.hex(digest);
        } catch (CharacterCodingException error) {
            throw new BundleException("has no canonical form (a string holds half a surrogate pair)", error);
        }
    }

    private static void write(@Nullable Object value, StringBuilder made) {
        if (value instanceof Map<?, ?> fields) {
            made.append('{');
            Iterator<String> keys = fields.keySet().stream()
                    .map(String.class::cast)
                    .sorted(BY_CODE_POINTS)
                    .iterator();
            while (keys.hasNext()) {
                String key = keys.next();
                writeString(key, made);
                made.append(':');
                write(fields.get(key), made);
                made.append(keys.hasNext() ? "," : "");
            }
            made.append('}');
        } else if (value instanceof List<?> items) {
            made.append('[');
            for (int i = 0; i < items.size(); i++) {
                made.append(i == 0 ? "" : ",");
                write(items.get(i), made);
            }
            made.append(']');
        } else if (value instanceof String string) {
            writeString(string, made);
        } else if (value instanceof JsonNumber number) {
            made.append(number.text());
        } else {
            made.append(value); // true, false, null
        }
    }

    private static void writeString(String text, StringBuilder made) {
        made.append('"');
        for (int i = 0; i < text.length(); i++) {
            char c = text.charAt(i);
            switch (c) {
                case '"', '\\' -> made.append('\\').append(c);
                case '\b' -> made.append("\\b");
                case '\t' -> made.append("\\t");
                case '\n' -> made.append("\\n");
                case '\f' -> made.append("\\f");
                case '\r' -> made.append("\\r");
                default -> {
                    if (c < ' ') {
                        made.append(String.format(Locale.ROOT, "\\u%04x", (int) c));
                    } else {
                        made.append(c);
                    }
                }
            }
        }
        made.append('"');
    }

    /** Unlike {@code String.compareTo}, which goes by UTF-16 and so has U+1F600 before U+FF61. */
    private static int compareCodePoints(String one, String other) {
        int i = 0;
        int j = 0;
        while (i < one.length() && j < other.length()) {
            int first = one.codePointAt(i);
            int second = other.codePointAt(j);
            if (first != second) {
                return Integer.compare(first, second);
            }
            i += Character.charCount(first);
            j += Character.charCount(second);
        }
        return Integer.compare(one.length() - i, other.length() - j);
    }
}
