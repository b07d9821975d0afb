package dev.pocketvl.engines.tflite;

import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.nio.file.Path;
import org.jspecify.annotations.Nullable;

/** TFLite on this desktop: the AAR's library over what {@code make android-tflite} builds. Loaded once in a JVM. */
public final class DesktopTflite {
    private static @Nullable TfliteEngine engine;

    private DesktopTflite() {}

    /** The engine; the test is skipped where -Dpocketvl.tflite.library does not name the library. */
    public static synchronized TfliteEngine engine() {
        String library = System.getProperty("pocketvl.tflite.library", "");
        assumeTrue(!library.isEmpty(), "no -Dpocketvl.tflite.library=.../libtflite_desktop.so; make android-tflite builds it");
        TfliteEngine found = engine;
        if (found == null) {
            found = new TfliteEngine(Path.of(library));
            engine = found;
        }
        return found;
    }
}
