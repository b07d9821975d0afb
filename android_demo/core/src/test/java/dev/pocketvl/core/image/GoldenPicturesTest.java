package dev.pocketvl.core.image;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Pictures of the golden packs in tests/bundles, decoded from their files. */
class GoldenPicturesTest {
    private static final Path BUNDLES = Path.of("..", "..", "tests", "bundles");
    /** ImageIO's libjpeg is older than Pillow's; a few levels is what docs/BUNDLE.md says of other decoders. */
    private static final int JPEG_LEVELS = 3;

    static List<Path> goldenImages() throws IOException {
        try (Stream<Path> files = Files.walk(BUNDLES)) {
            return files.filter(file -> file.getParent().endsWith(Path.of("golden", "images"))
                            && Files.exists(bundleOf(file).resolve("manifest.json"))
                            && isFormat2(bundleOf(file)))
                    .sorted()
                    .toList();
        }
    }

    @ParameterizedTest
    @MethodSource("goldenImages")
    void goldenPixelsComeOut(Path image) throws IOException {
        JsonObject manifest = manifest(bundleOf(image));
        ImageSettings settings = ImageSettingsJson.of(
                manifest.getAsJsonObject("processors").getAsJsonObject("image"));
        DesktopPictureDecoder decoder = new DesktopPictureDecoder();
        byte[] pixels = new ImageProcessor(settings).pixels(decoder.decode(Files.readAllBytes(image)));
        String name = image.getFileName().toString();
        Path golden = image.getParent().resolveSibling("pixels").resolve(name.substring(0, name.indexOf('.')) + ".png");
        int largest = ImageProcessorPixelsTest.difference(rgb(decoder.decode(Files.readAllBytes(golden))), pixels);
        if (name.endsWith(".png")) {
            assertEquals(0, largest, image::toString);
        } else {
            assertTrue(largest <= JPEG_LEVELS, () -> image + " is off by " + largest);
        }
    }

    private static byte[] rgb(Picture picture) {
        byte[] rgb = new byte[picture.argb().length * 3];
        int to = 0;
        for (int pixel : picture.argb()) {
            rgb[to++] = (byte) (pixel >> 16);
            rgb[to++] = (byte) (pixel >> 8);
            rgb[to++] = (byte) pixel;
        }
        return rgb;
    }

    private static Path bundleOf(Path image) {
        return image.getParent().getParent().getParent();
    }

    private static boolean isFormat2(Path bundle) {
        try {
            return manifest(bundle).has("processors");
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private static JsonObject manifest(Path bundle) throws IOException {
        return JsonParser.parseString(Files.readString(bundle.resolve("manifest.json"))).getAsJsonObject();
    }
}
