package dev.pocketvl.core.text;

import dev.pocketvl.core.errors.BundleException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Base64;
import org.jspecify.annotations.Nullable;

/**
 * SentencePiece's table of replacements: the size of a double-array trie, the trie, and texts that each end in a zero
 * byte.
 *
 * <p>A grapheme cluster of less than six bytes is replaced as a whole where the table has any beginning of it, by what
 * stands for the shortest; other clusters are replaced code point by code point. That is what the library does.
 */
final class PrecompiledNormalizer implements Normalizer {
    private static final int LONG_CLUSTER = 6;
    private static final int NO_VALUE = -1;

    private final int[] units;
    private final byte[] texts;

    /**
     * Reads a table.
     *
     * @param table in base64
     * @throws BundleException it is damaged
     */
    PrecompiledNormalizer(String table) {
        byte[] bytes;
        try {
            bytes = Base64.getDecoder().decode(table);
        } catch (IllegalArgumentException error) {
            throw damaged(error);
        }
        ByteBuffer buffer = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
        long size = bytes.length < 4 ? -1 : buffer.getInt() & 0xFFFFFFFFL;
        if (size < 4 || size > buffer.remaining()) {
            throw damaged(null);
        }
        units = new int[(int) size / 4];
        buffer.asIntBuffer().get(units);
        texts = Arrays.copyOfRange(bytes, 4 + 4 * units.length, bytes.length);
        if (!Utf8.isValid(texts)) {
            throw damaged(null);
        }
    }

    @Override
    public Normalized normalize(Normalized given) {
        String text = given.text();
        StringBuilder out = new StringBuilder(text.length());
        for (int start = 0; start < text.length(); ) {
            int end = GraphemeClusters.end(text, start);
            String whole = Utf8.length(text, start, end) < LONG_CLUSTER ? replacement(text, start, end) : null;
            if (whole != null) {
                out.append(whole);
            } else {
                appendEach(text, start, end, out);
            }
            Normalizer.checkLength(out.length());
            start = end;
        }
        return given.with(out.toString());
    }

    private void appendEach(String text, int start, int end, StringBuilder out) {
        for (int at = start; at < end; ) {
            int next = at + Character.charCount(text.codePointAt(at));
            String each = replacement(text, at, next);
            if (each != null) {
                out.append(each);
            } else {
                out.append(text, at, next);
            }
            at = next;
        }
    }

    /** What stands for the shortest beginning of a part of a text, or null where the table has none. */
    private @Nullable String replacement(String text, int start, int end) {
        byte[] key = text.substring(start, end).getBytes(StandardCharsets.UTF_8);
        int at = find(key);
        if (at == NO_VALUE) {
            return null;
        }
        boolean inside = at < texts.length && (texts[at] & 0xC0) != 0x80;
        if (!inside && at != texts.length) {
            throw damaged(null);
        }
        int stop = at;
        while (stop < texts.length && texts[stop] != 0) {
            stop++;
        }
        return new String(texts, at, stop - at, StandardCharsets.UTF_8);
    }

    /** Walks the trie; a unit holds a label, an offset to its children, and whether a value is the first of these. */
    private int find(byte[] key) {
        int node = offset(unit(0));
        for (byte each : key) {
            int label = each & 0xFF;
            if (label == 0) {
                return NO_VALUE;
            }
            node ^= label;
            int unit = unit(node);
            if ((unit & 0x800000FF) != label) {
                return NO_VALUE;
            }
            node ^= offset(unit);
            if ((unit >>> 8 & 1) == 1) {
                return unit(node) & 0x7FFFFFFF;
            }
        }
        return NO_VALUE;
    }

    private static int offset(int unit) {
        return unit >>> 10 << ((unit & 0x200) >>> 6);
    }

    private int unit(int node) {
        if (node < 0 || node >= units.length) {
            throw damaged(null);
        }
        return units[node];
    }

    private static BundleException damaged(@Nullable Throwable cause) {
        return new BundleException("the normalizer's precompiled_charsmap is damaged", cause);
    }
}
