package dev.pocketvl.core.image;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.pocketvl.core.errors.InputException;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.jspecify.annotations.Nullable;

/** Pixels equal the Python runtime's, byte for byte. */
class ImageProcessorPixelsTest {
    private static final String CASES = "pocketvl.cases";
    private static final Path COMMITTED = Path.of("src", "test", "resources", "pictures");

    @Test
    void committedPicturesHaveThePixelsOfPython() throws IOException {
        assertEqualPixels(PictureCase.read(COMMITTED), 60);
    }

    @Test
    void manyPicturesHaveThePixelsOfPython() throws IOException {
        @Nullable String folder = System.getProperty(CASES);
        assumeTrue(folder != null, "name the folder of tests/android/write_pictures.py: -D" + CASES + "=DIR");
        assertEqualPixels(PictureCase.read(Path.of(folder)), 500);
    }

    private static void assertEqualPixels(List<PictureCase> cases, int least) throws IOException {
        List<String> wrong = new ArrayList<>();
        int byRuntime = 0;
        int refused = 0;
        int largest = 0;
        for (PictureCase each : cases) {
            byRuntime += each.expectedByRuntime() ? 1 : 0;
            byte @Nullable [] expected = each.pixels();
            byte @Nullable [] pixels = pixelsOf(each);
            refused += expected == null ? 1 : 0;
            int difference = difference(expected, pixels);
            largest = Math.max(largest, difference);
            if (difference > 0) {
                wrong.add(each.name() + ": off by " + difference);
            }
        }
        System.out.printf(
                "%d pictures, %d of them held against the runtime, the others against docs/BUNDLE.md in numpy;"
                        + " %d refused by both sides; largest difference %d%n",
                cases.size(), byRuntime, refused, largest);
        assertTrue(cases.size() >= least, "no more than " + cases.size() + " cases");
        assertTrue(byRuntime * 2 > cases.size(), "no more than " + byRuntime + " cases of the runtime");
        assertEquals(List.of(), wrong);
    }

    private static byte @Nullable [] pixelsOf(PictureCase each) throws IOException {
        ImageProcessor processor = new ImageProcessor(each.settings());
        Picture picture = each.picture();
        try {
            return processor.pixels(picture);
        } catch (InputException error) {
            assertTrue(error.getMessage().contains("so elongated"), error.getMessage());
            return null;
        }
    }

    /** Of the values that differ most; 256 where there are other values, or none on one side. */
    static int difference(byte @Nullable [] expected, byte @Nullable [] pixels) {
        if (expected == null || pixels == null || expected.length != pixels.length) {
            return expected == pixels ? 0 : 256;
        }
        int largest = 0;
        for (int i = 0; i < expected.length; i++) {
            largest = Math.max(largest, Math.abs((expected[i] & 0xFF) - (pixels[i] & 0xFF)));
        }
        return largest;
    }
}
