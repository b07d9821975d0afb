package dev.pocketvl.core.text;

import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;

/** UTF-8, as far as the platform does not do it. */
final class Utf8 {
    private Utf8() {}

    /** How many bytes a part of a text takes. */
    static int length(String text, int start, int end) {
        int length = 0;
        for (int at = start; at < end; at++) {
            char unit = text.charAt(at);
            length += unit < 0x80 ? 1 : unit < 0x800 || Character.isSurrogate(unit) ? 2 : 3;
        }
        return length;
    }

    /** Whether bytes are valid UTF-8. */
    static boolean isValid(byte[] bytes) {
        try {
            StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes));
            return true;
        } catch (CharacterCodingException error) {
            return false;
        }
    }

    /** The index of the first surrogate that is not one of a pair, or -1. */
    static int loneSurrogate(String text) {
        for (int at = 0; at < text.length(); at++) {
            if (Character.isHighSurrogate(text.charAt(at))
                    && at + 1 < text.length()
                    && Character.isLowSurrogate(text.charAt(at + 1))) {
                at++;
            } else if (Character.isSurrogate(text.charAt(at))) {
                return at;
            }
        }
        return -1;
    }
}
