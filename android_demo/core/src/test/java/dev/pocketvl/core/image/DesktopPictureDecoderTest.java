package dev.pocketvl.core.image;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.pocketvl.core.errors.InputException;
import java.awt.image.BufferedImage;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import javax.imageio.ImageIO;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.jspecify.annotations.Nullable;

/** The decoder that the other tests use, and how far its JPEGs are from Pillow's. */
class DesktopPictureDecoderTest {
    private static final Path JPEG =
            Path.of("..", "..", "tests", "bundles", "format-2.0", "golden", "images", "wide.jpg");
    /** Levels: of the decoders' pixels, and of what is made of them; docs/BUNDLE.md says "a few". */
    private static final int MOST_DECODED = 8;

    private static final int MOST_PROCESSED = 3;

    private final DesktopPictureDecoder decoder = new DesktopPictureDecoder();

    @Test
    void greysAreThoseOfTheFile() throws IOException {
        BufferedImage grey = new BufferedImage(256, 1, BufferedImage.TYPE_BYTE_GRAY);
        BufferedImage wide = new BufferedImage(256, 1, BufferedImage.TYPE_USHORT_GRAY);
        for (int x = 0; x < 256; x++) {
            grey.getRaster().setSample(x, 0, 0, x);
            wide.getRaster().setSample(x, 0, 0, x * 251);
        }
        int[] greys = decoder.decode(png(grey)).argb();
        int[] wides = decoder.decode(png(wide)).argb();
        for (int x = 0; x < 256; x++) {
            assertEquals(0xFF000000 | x * 0x010101, greys[x]);
            assertEquals(0xFF000000 | (int) ((255L * x * 251 + 32767) / 65535) * 0x010101, wides[x]);
        }
    }

    @Test
    void opacityIsNotMultipliedIntoTheColours() throws IOException {
        BufferedImage image = new BufferedImage(2, 1, BufferedImage.TYPE_INT_ARGB);
        image.setRGB(0, 0, 0x01FF8040);
        image.setRGB(1, 0, 0x00123456);
        assertEquals("[33521728, 1193046]", Arrays.toString(decoder.decode(png(image)).argb()));
    }

    @ParameterizedTest
    @ValueSource(ints = {1, 3, 6, 8})
    void theOrientationIsThatOfTheExifData(int orientation) throws IOException {
        byte[] plain = Files.readAllBytes(JPEG);
        assertEquals(1, decoder.decode(plain).orientation());
        assertEquals(orientation, decoder.decode(withExif(plain, orientation)).orientation());
    }

    @Test
    void whatIsNoPictureIsRefused() throws IOException {
        byte[] text = "no picture".getBytes(StandardCharsets.US_ASCII);
        assertThrows(InputException.class, () -> decoder.decode(text));
        byte[] cut = Arrays.copyOf(png(new BufferedImage(40, 40, BufferedImage.TYPE_INT_ARGB)), 60);
        assertThrows(InputException.class, () -> decoder.decode(cut));
    }

    @Test
    void jpegsAreAFewLevelsFromPillows() throws IOException {
        @Nullable String cases = System.getProperty("pocketvl.cases");
        @Nullable String photos = System.getProperty("pocketvl.photos");
        assumeTrue(
                cases != null && photos != null,
                "name the folders of tests/android/write_pictures.py and of its photos: -Dpocketvl.cases=DIR"
                        + " -Dpocketvl.photos=DIR");
        int[] decoded = new int[256];
        int[] processed = new int[256];
        int count = 0;
        for (PictureCase each : PictureCase.read(Path.of(cases))) {
            byte @Nullable [] pixels = each.pixels();
            if (!each.file().endsWith(".jpg") || pixels == null) {
                continue;
            }
            count++;
            Picture picture = decoder.decode(Files.readAllBytes(Path.of(photos).resolve(each.file())));
            addDifferences(decoded, channels(each.picture().argb()), channels(picture.argb()));
            addDifferences(processed, pixels, new ImageProcessor(each.settings()).pixels(picture));
        }
        System.out.printf("%d JPEGs by ImageIO and by Pillow: decoded %s, processed %s%n",
                count, summary(decoded), summary(processed));
        assertTrue(count > 0, "no JPEG among the cases");
        assertTrue(largest(decoded) <= MOST_DECODED, () -> "decoded: " + summary(decoded));
        assertTrue(largest(processed) <= MOST_PROCESSED, () -> "processed: " + summary(processed));
    }

    private static void addDifferences(int[] counts, byte[] expected, byte[] values) {
        assertEquals(expected.length, values.length);
        for (int i = 0; i < values.length; i++) {
            counts[Math.abs((expected[i] & 0xFF) - (values[i] & 0xFF))]++;
        }
    }

    private static int largest(int[] counts) {
        int largest = 0;
        for (int i = 0; i < counts.length; i++) {
            largest = counts[i] > 0 ? i : largest;
        }
        return largest;
    }

    private static String summary(int[] counts) {
        long all = 0;
        long sum = 0;
        for (int i = 0; i < counts.length; i++) {
            all += counts[i];
            sum += (long) i * counts[i];
        }
        return String.format("largest difference %d, mean %.4f, equal %.2f %%",
                largest(counts), (double) sum / all, 100.0 * counts[0] / all);
    }

    private static byte[] channels(int[] argb) {
        byte[] rgb = new byte[argb.length * 3];
        int to = 0;
        for (int pixel : argb) {
            rgb[to++] = (byte) (pixel >> 16);
            rgb[to++] = (byte) (pixel >> 8);
            rgb[to++] = (byte) pixel;
        }
        return rgb;
    }

    private static byte[] png(BufferedImage image) throws IOException {
        ByteArrayOutputStream stream = new ByteArrayOutputStream();
        assertTrue(ImageIO.write(image, "png", stream));
        return stream.toByteArray();
    }

    /** Puts a segment with one directory of one entry behind the begin of a JPEG. */
    private static byte[] withExif(byte[] jpeg, int orientation) {
        byte[] segment = {
            (byte) 0xFF, (byte) 0xE1, 0, 34, 'E', 'x', 'i', 'f', 0, 0, 'M', 'M', 0, '*', 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3,
            0, 0, 0, 1, 0, (byte) orientation, 0, 0, 0, 0, 0, 0
        };
        byte[] file = new byte[jpeg.length + segment.length];
        System.arraycopy(jpeg, 0, file, 0, 2);
        System.arraycopy(segment, 0, file, 2, segment.length);
        System.arraycopy(jpeg, 2, file, 2 + segment.length, jpeg.length - 2);
        return file;
    }
}
