package dev.pocketvl.core.text;

/** The tokens {@code <0x00>} to {@code <0xFF>}, which stand for what a vocabulary does not hold. */
final class ByteTokens {
    private final int[] ids = new int[256];

    ByteTokens(Vocabulary vocabulary) {
        String digits = "0123456789ABCDEF";
        for (int each = 0; each < 256; each++) {
            ids[each] = vocabulary.find("<0x" + digits.charAt(each >> 4) + digits.charAt(each & 15) + ">");
        }
    }

    /** Whether there is one for each byte of a part of an array. */
    boolean holdAll(byte[] bytes, int start, int end) {
        for (int index = start; index < end; index++) {
            if (id(bytes[index]) == Vocabulary.NO_ID) {
                return false;
            }
        }
        return true;
    }

    int id(byte each) {
        return ids[each & 0xFF];
    }
}
