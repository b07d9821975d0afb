package dev.pocketvl.core.text;

import java.nio.charset.StandardCharsets;

/** The alphabet of byte-level tokenizers: a letter for each byte, printable ones for themselves. */
final class ByteLevel {
    private static final char[] LETTERS = new char[256];

    static {
        int others = 0;
        for (int each = 0; each < 256; each++) {
            boolean printable = each >= '!' && each <= '~' || each >= 0xA1 && each <= 0xAC || each >= 0xAE;
            LETTERS[each] = (char) (printable ? each : 0x100 + others++);
        }
    }

    private ByteLevel() {}

    /** A letter for each byte of a text's UTF-8. */
    static String letters(String text) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        char[] letters = new char[bytes.length];
        for (int index = 0; index < bytes.length; index++) {
            letters[index] = LETTERS[bytes[index] & 0xFF];
        }
        return new String(letters);
    }
}
