package dev.pocketvl.core.text;

import dev.pocketvl.core.errors.BundleException;
import java.util.Arrays;

/** A buffer of UTF-8, filled from strings. */
final class TokenBytes {
    private byte[] bytes = new byte[256];
    private int length;

    byte[] array() {
        return bytes;
    }

    int length() {
        return length;
    }

    void clear() {
        length = 0;
    }

    /** Forgets what stands beyond a length. */
    void cut(int newLength) {
        length = newLength;
    }

    /**
     * Appends a string.
     *
     * @throws BundleException it holds half a surrogate pair
     */
    void append(String text) {
        for (int at = 0; at < text.length(); ) {
            int codePoint = text.codePointAt(at);
            append(codePoint);
            at += Character.charCount(codePoint);
        }
    }

    /** Appends a code point. */
    void append(int codePoint) {
        if (length + 4 > bytes.length) {
            bytes = Arrays.copyOf(bytes, 2 * bytes.length);
        }
        if (codePoint < 0x80) {
            bytes[length++] = (byte) codePoint;
            return;
        }
        if (codePoint < 0x800) {
            bytes[length++] = (byte) (0xC0 | codePoint >> 6);
        } else {
            if (codePoint < 0x10000) {
                if (codePoint >= Character.MIN_SURROGATE && codePoint <= Character.MAX_SURROGATE) {
                    throw new BundleException("the tokenizer holds a string that is not valid Unicode");
                }
                bytes[length++] = (byte) (0xE0 | codePoint >> 12);
            } else {
                bytes[length++] = (byte) (0xF0 | codePoint >> 18);
                bytes[length++] = (byte) (0x80 | codePoint >> 12 & 0x3F);
            }
            bytes[length++] = (byte) (0x80 | codePoint >> 6 & 0x3F);
        }
        bytes[length++] = (byte) (0x80 | codePoint & 0x3F);
    }
}
