package dev.pocketvl.core.manifest;

import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.errors.Quoted;
import java.util.regex.Pattern;

/** What names and paths of a bundle may be. */
public final class Names {
    static final int MAX_NAME_CHARS = 255;
    private static final Pattern NAME = Pattern.compile("[A-Za-z_][A-Za-z0-9_]*");

    private Names() {}

    /**
     * Checks that a path stays inside its bundle.
     *
     * @return the path
     * @throws BundleException it is empty, absolute, holds a backslash, a drive, {@code ..} or other odd parts
     */
    public static String checkRelativePath(String path) {
        boolean odd = path.indexOf('\\') >= 0 || path.indexOf(':') >= 0 || path.indexOf('\0') >= 0;
        for (String part : path.split("/", -1)) {
            odd |= part.isEmpty() || part.equals(".") || part.equals("..");
        }
        if (odd) {
            throw new BundleException(
                    "path " + Quoted.quoted(path) + " does not stay inside the bundle; do not use this bundle");
        }
        return path;
    }

    /** Refuses names of components, processors, tasks and sizes that are not letters, digits and {@code _}. */
    static void check(String what, String name) {
        if (name.length() > MAX_NAME_CHARS || !NAME.matcher(name).matches()) {
            throw new BundleException(what + " " + Quoted.quoted(name)
                    + " must be letters, digits and _, and not begin with a digit");
        }
    }

    static int characters(String text) {
        return text.codePointCount(0, text.length());
    }
}
