package dev.pocketvl.core.image;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.errors.InputException;
import dev.pocketvl.core.image.ImageSettings.Alpha;
import dev.pocketvl.core.image.ImageSettings.Anchor;
import dev.pocketvl.core.image.ImageSettings.CenterCrop;
import dev.pocketvl.core.image.ImageSettings.Filter;
import dev.pocketvl.core.image.ImageSettings.Mode;
import dev.pocketvl.core.image.ImageSettings.Orientation;
import dev.pocketvl.core.image.ImageSettings.Pad;
import dev.pocketvl.core.image.ImageSettings.Resize;
import dev.pocketvl.core.image.ImageSettings.Rounding;
import dev.pocketvl.core.image.ImageSettings.Step;
import java.math.BigDecimal;
import java.math.RoundingMode;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ThreadLocalRandom;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** What holds of every picture, whatever Python says. */
class ImageProcessorTest {
    @ParameterizedTest
    @EnumSource(Filter.class)
    void aPictureOfTheRightSizeIsLeftAsItIs(Filter filter) {
        Picture picture = noise(37, 23, 1);
        assertArrayEquals(rgb(picture.argb()), pixels(picture, exact(37, 23, filter)));
    }

    @ParameterizedTest
    @EnumSource(Filter.class)
    void oneColourStaysOneColourInEverySize(Filter filter) {
        Random random = new Random(filter.ordinal());
        for (int run = 0; run < 60; run++) {
            int colour = 0xFF000000 | random.nextInt(1 << 24);
            int[] argb = new int[(1 + random.nextInt(200)) * 7];
            Arrays.fill(argb, colour);
            int width = 1 + random.nextInt(90);
            int height = 1 + random.nextInt(90);
            int[] expected = new int[width * height];
            Arrays.fill(expected, colour);
            byte[] pixels = pixels(new Picture(7, argb.length / 7, argb, 1), exact(width, height, filter));
            assertArrayEquals(rgb(expected), pixels);
        }
    }

    /** Weights of a pass, and the sums that they can make, must fit into half of a long. */
    @ParameterizedTest
    @EnumSource(Filter.class)
    void sumsOfWeightsFitInto32Bits(Filter filter) {
        Random random = new Random(5);
        for (int run = 0; run < 3000; run++) {
            int from = run < 1000 ? 1 + run % 40 : 1 + random.nextInt(4000);
            int size = run < 1000 ? 1 + run / 25 : 1 + random.nextInt(400);
            PassWeights pass = PassWeights.of(from, size, 0, size, filter, run % 5 != 0);
            for (int i = 0; i < size; i++) {
                long sum = 1 << PassWeights.BITS - 1;
                for (int k = 0; k < pass.counts()[i]; k++) {
                    sum += 255L * Math.abs(pass.weights()[i * pass.taps() + k]);
                }
                assertTrue(sum <= Integer.MAX_VALUE, filter + " from " + from + " to " + size + ": " + sum);
                assertTrue(pass.counts()[i] >= 1 && pass.counts()[i] <= pass.taps());
                assertTrue(pass.first()[i] >= 0 && pass.end(i) <= from);
            }
        }
    }

    @Test
    void transparencyOnWhiteIsTheRoundedExactValue() {
        int off = 0;
        for (int alpha = 0; alpha < 256; alpha++) {
            for (int channel = 0; channel < 256; channel++) {
                BigDecimal exact = BigDecimal.valueOf(channel * alpha + 255 * (255 - alpha))
                        .divide(BigDecimal.valueOf(255), 0, RoundingMode.HALF_UP);
                int got = PictureRows.overWhite(channel, alpha);
                off = Math.max(off, Math.abs(exact.intValueExact() - got));
            }
        }
        assertEquals(0, off);
    }

    @Test
    void droppedTransparencyLeavesTheColour() {
        Picture picture = new Picture(2, 1, new int[] {0x00123456, 0x7FABCDEF}, 1);
        ImageSettings settings = new ImageSettings(
                Orientation.EXIF, Alpha.DROP, List.of(exact(2, 1, Filter.BICUBIC)), 1, 2);
        assertArrayEquals(rgb(picture.argb()), new ImageProcessor(settings).pixels(picture));
    }

    @ParameterizedTest
    @ValueSource(ints = {1, 2, 3, 4, 5, 6, 7, 8, 0, 9, -1})
    void picturesAreTurnedAsExifSays(int orientation) {
        Picture picture = noise(5, 40, 3);
        int[] argb = picture.argb();
        boolean transposed = orientation >= 5 && orientation <= 8;
        int width = transposed ? 40 : 5;
        int[] expected = new int[argb.length];
        for (int y = 0; y < 40; y++) {
            for (int x = 0; x < 5; x++) {
                int place = switch (orientation) { // of EXIF: what the stored first row and column are upright
                    case 2 -> y * width + 4 - x;
                    case 3 -> (39 - y) * width + 4 - x;
                    case 4 -> (39 - y) * width + x;
                    case 5 -> x * width + y;
                    case 6 -> x * width + 39 - y;
                    case 7 -> (4 - x) * width + 39 - y;
                    case 8 -> (4 - x) * width + y;
                    default -> y * width + x;
                };
                expected[place] = argb[y * 5 + x];
            }
        }
        Picture turned = new Picture(5, 40, argb, orientation);
        assertArrayEquals(rgb(expected), pixels(turned, exact(width, 200 / width, Filter.BILINEAR)));
        ImageSettings stored = new ImageSettings(
                Orientation.AS_STORED, Alpha.DROP, List.of(exact(5, 40, Filter.BILINEAR)), 40, 5);
        assertArrayEquals(rgb(argb), new ImageProcessor(stored).pixels(turned));
    }

    @Test
    void aCropAfterAResizeIsTheMiddleOfTheResized() {
        Random random = new Random(8);
        for (int run = 0; run < 200; run++) {
            Picture picture = noise(1 + random.nextInt(60), 1 + random.nextInt(60), run);
            Filter filter = Filter.values()[run % Filter.values().length];
            Rounding rounding = Rounding.values()[run % Rounding.values().length];
            int width = 1 + random.nextInt(40);
            int height = 1 + random.nextInt(40);
            CenterCrop crop = new CenterCrop(1 + random.nextInt(50), 1 + random.nextInt(50), rounding);
            Picture resized = picture(width, height, pixels(picture, exact(width, height, filter)));
            assertArrayEquals(pixels(resized, crop), pixels(picture, exact(width, height, filter), crop));
        }
    }

    @Test
    void aPadFillsWhatThePictureLeaves() {
        Picture picture = new Picture(1, 1, new int[] {0xFF010203}, 1);
        int[] fill = {250, 0, 7};
        byte[] corner = pixels(picture, new Pad(2, 2, fill, Anchor.TOP_LEFT));
        assertArrayEquals(new byte[] {1, 2, 3, -6, 0, 7, -6, 0, 7, -6, 0, 7}, corner);
        byte[] centre = pixels(picture, new Pad(1, 4, fill, Anchor.CENTER));
        assertArrayEquals(new byte[] {-6, 0, 7, 1, 2, 3, -6, 0, 7, -6, 0, 7}, centre);
    }

    @Test
    void picturesThatCannotBeAreRefused() {
        ImageProcessor processor = new ImageProcessor(settings(edge(Mode.SHORTEST_EDGE, 224), crop(224, 224)));
        assertRefused(processor, new Picture(0, 5, new int[0], 1), "has no pixels (0 x 5)");
        assertRefused(processor, new Picture(5, -1, new int[5], 1), "has no pixels (5 x -1)");
        assertRefused(processor, new Picture(2, 2, new int[3], 1), "has 3 pixels, and 2 x 2 are 4");
        assertRefused(processor, new Picture(10_000, 8_901, new int[1], 1), "more than 89000000 pixels");
        assertRefused(processor, noise(1, 5000, 1), "1 x 5000, so elongated");
        Pad pad = new Pad(8, 8, new int[3], Anchor.CENTER);
        ImageProcessor longest = new ImageProcessor(settings(edge(Mode.LONGEST_EDGE, 8), pad));
        assertRefused(longest, noise(1, 17, 1), "resizing it to 0 x 8");
        assertRefused(new ImageProcessor(settings(pad)), noise(9, 8, 1), "9 x 8 where it is to be padded to 8 x 8");
    }

    @Test
    void settingsThatCannotBeAreRefused() {
        Step crop = crop(4, 4);
        for (ImageSettings settings : List.of(
                settings(4, 5, List.of(crop)),
                settings(4, 4, List.of()),
                settings(4, 4, List.of(edge(Mode.SHORTEST_EDGE, 4))),
                settings(0, 4, List.of(crop(0, 4))),
                settings(4, 4, List.of(edge(Mode.SHORTEST_EDGE, 0), crop)),
                settings(60_000, 60_000, List.of(crop(60_000, 60_000))))) {
            BundleException error = assertThrows(BundleException.class, () -> new ImageProcessor(settings));
            assertTrue(error.getMessage().endsWith("export the bundle again"), error.getMessage());
        }
    }

    @Test
    void severalThreadsShareOneProcessor() {
        ImageProcessor processor = new ImageProcessor(settings(edge(Mode.SHORTEST_EDGE, 24), crop(24, 24)));
        List<Picture> pictures = List.of(noise(90, 61, 1), noise(33, 70, 2), noise(300, 200, 3));
        List<byte[]> alone = pictures.stream().map(processor::pixels).toList();
        IntStream.range(0, 64).parallel().forEach(i -> {
            int each = ThreadLocalRandom.current().nextInt(pictures.size());
            assertArrayEquals(alone.get(each), processor.pixels(pictures.get(each)));
        });
    }

    private static void assertRefused(ImageProcessor processor, Picture picture, String part) {
        InputException error = assertThrows(InputException.class, () -> processor.pixels(picture));
        assertTrue(error.getMessage().contains(part), error.getMessage());
    }

    // --- building -----------------------------------------------------------------------------------------------

    private static byte[] pixels(Picture picture, Step... steps) {
        return new ImageProcessor(settings(steps)).pixels(picture);
    }

    private static ImageSettings settings(Step... steps) {
        Step last = steps[steps.length - 1];
        int height = 0;
        int width = 0;
        if (last instanceof Resize resize) {
            height = resize.height();
            width = resize.width();
        } else if (last instanceof CenterCrop crop) {
            height = crop.height();
            width = crop.width();
        } else if (last instanceof Pad pad) {
            height = pad.height();
            width = pad.width();
        }
        return settings(height, width, List.of(steps));
    }

    private static ImageSettings settings(int height, int width, List<Step> steps) {
        return new ImageSettings(Orientation.EXIF, Alpha.OVER_WHITE, steps, height, width);
    }

    private static Resize exact(int width, int height, Filter filter) {
        return new Resize(Mode.EXACT, 0, height, width, filter, true, Rounding.FLOOR);
    }

    private static Resize edge(Mode mode, int size) {
        return new Resize(mode, size, 0, 0, Filter.BICUBIC, true, Rounding.FLOOR);
    }

    private static CenterCrop crop(int height, int width) {
        return new CenterCrop(height, width, Rounding.FLOOR);
    }

    private static Picture noise(int width, int height, long seed) {
        Random random = new Random(seed);
        int[] argb = new int[width * height];
        for (int i = 0; i < argb.length; i++) {
            argb[i] = 0xFF000000 | random.nextInt(1 << 24);
        }
        return new Picture(width, height, argb, 1);
    }

    private static Picture picture(int width, int height, byte[] rgb) {
        int[] argb = new int[width * height];
        new RgbPixels(width, height, rgb).read(0, 0, width, height, argb);
        for (int i = 0; i < argb.length; i++) {
            argb[i] |= 0xFF000000;
        }
        return new Picture(width, height, argb, 1);
    }

    private static byte[] rgb(int[] argb) {
        byte[] rgb = new byte[argb.length * 3];
        for (int i = 0; i < argb.length; i++) {
            rgb[3 * i] = (byte) (argb[i] >> 16);
            rgb[3 * i + 1] = (byte) (argb[i] >> 8);
            rgb[3 * i + 2] = (byte) argb[i];
        }
        return rgb;
    }
}
