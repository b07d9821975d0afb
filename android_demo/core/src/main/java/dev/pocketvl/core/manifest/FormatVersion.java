package dev.pocketvl.core.manifest;

import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.errors.Quoted;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/** The version of the bundle format, {@code major.minor}, of manifests and golden packs. */
public final class FormatVersion {
    private static final int MAJOR = 2;
    private static final int MINOR = 0;
    private static final Pattern VERSION = Pattern.compile("(0|[1-9][0-9]{0,5})\\.(0|[1-9][0-9]{0,5})");

    private FormatVersion() {}

    /**
     * Whether a version is of a newer minor than this library's, so that unknown keys are to be ignored.
     *
     * @param version what stands in a file
     * @throws BundleException it is no version, or of another major; the message says what to do
     */
    public static boolean isNewer(@Nullable Object version) {
        Matcher match = VERSION.matcher(version instanceof String text ? text : "");
        if (!match.matches()) {
            String shown = version instanceof String text ? Quoted.quoted(text) : String.valueOf(version);
            throw new BundleException("version is " + shown + ", and must be like '" + MAJOR + "." + MINOR + "'");
        }
        int major = Integer.parseInt(match.group(1));
        if (major == MAJOR) {
            return Integer.parseInt(match.group(2)) > MINOR;
        }
        String advice = major > MAJOR ? "install a newer version of this app" : "export the bundle again";
        throw new BundleException(
                "version is " + version + ", and this runtime reads " + MAJOR + ".x; " + advice);
    }
}
