package dev.pocketvl.core.engine;

import java.math.BigInteger;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Compares versions of engines by the numbers that they begin with: 2.16.1, 1.29.0-rc1. */
public final class EngineVersion {
    private static final Pattern RELEASE = Pattern.compile("[0-9]+(\\.[0-9]+)*");

    private EngineVersion() {}

    /** Whether a version is another one or newer; one that begins with no number is trusted. */
    public static boolean isAtLeast(String version, String least) {
        Matcher release = RELEASE.matcher(version);
        if (!release.lookingAt()) {
            return true;
        }
        String[] found = release.group().split("\\.");
        String[] wanted = least.split("\\.");
        for (int i = 0; i < Math.max(found.length, wanted.length); i++) {
            int order = number(found, i).compareTo(number(wanted, i));
            if (order != 0) {
                return order > 0;
            }
        }
        return true;
    }

    private static BigInteger number(String[] parts, int index) {
        return index < parts.length ? new BigInteger(parts[index]) : BigInteger.ZERO;
    }
}
