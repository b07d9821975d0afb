package dev.pocketvl.engines.onnx;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;

/** Whether an ONNX graph takes weights from elsewhere: another file, which no checksum covers, or an address in memory. */
final class ExternalData {
    /** The key under which protobuf says in which other file a tensor's values lie. */
    private static final byte[] KEY = "location".getBytes(StandardCharsets.US_ASCII);
    /** What stands before it is a field's tag and length, each as protobuf may write a number: in 1 to 10 bytes. */
    private static final int TAG = 0x0a;

    private static final int LONGEST_NUMBER = 10;

    private ExternalData() {}

    /** Whether the key stands in a file as the text of a field. */
    static boolean isIn(ByteBuffer content) {
        ByteBuffer file = content.duplicate();
        for (int at = file.position(); at <= file.limit() - KEY.length; at++) {
            if (file.get(at) == KEY[0] && isKey(file, at)) {
                int tagEnd = startOfNumber(file, at, KEY.length);
                if (tagEnd > 0 && startOfNumber(file, tagEnd, TAG) >= 0) {
                    return true;
                }
            }
        }
        return false;
    }

    private static boolean isKey(ByteBuffer file, int at) {
        for (int i = 1; i < KEY.length; i++) {
            if (file.get(at + i) != KEY[i]) {
                return false;
            }
        }
        return true;
    }

    /** Where a number below 128 begins that ends before {@code end}, in any length protobuf reads; -1 if none does. */
    private static int startOfNumber(ByteBuffer file, int end, int number) {
        int first = file.position();
        if (end - 1 >= first && file.get(end - 1) == number) {
            return end - 1;
        }
        int at = end - 1;
        if (at < first || file.get(at) != 0) {
            return -1;
        }
        at--;
        while (at >= first && end - at < LONGEST_NUMBER && file.get(at) == (byte) 0x80) {
            at--;
        }
        return at >= first && file.get(at) == (byte) (number | 0x80) ? at : -1;
    }
}
