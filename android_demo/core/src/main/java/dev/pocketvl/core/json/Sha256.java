package dev.pocketvl.core.json;

import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;

/** SHA-256 as lower-case hex digits. */
public final class Sha256 {
    private Sha256() {}

    /** Of a buffer from position to limit, which stay where they are. */
    public static String of(ByteBuffer content) {
        MessageDigest digest = digest();
        digest.update(content.duplicate());
        return hex(digest);
    }

    static MessageDigest digest() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException error) {
            throw new IllegalStateException("every Java platform has SHA-256", error);
        }
    }

    static String hex(MessageDigest digest) {
        StringBuilder made = new StringBuilder();
        for (byte each : digest.digest()) {
            made.append(Character.forDigit(each >> 4 & 15, 16)).append(Character.forDigit(each & 15, 16));
        }
        return made.toString();
    }
}
