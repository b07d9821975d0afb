package dev.pocketvl.core.image;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.zip.InflaterInputStream;
import org.jspecify.annotations.Nullable;

/** A picture and the pixels that Python makes of it: an entry of what tests/android/write_pictures.py writes. */
final class PictureCase {
    private final JsonObject entry;
    private final byte[] data;

    private PictureCase(JsonObject entry, byte[] data) {
        this.entry = entry;
        this.data = data;
    }

    static List<PictureCase> read(Path folder) throws IOException {
        byte[] data = Files.readAllBytes(folder.resolve("pictures.bin"));
        String list = Files.readString(folder.resolve("pictures.json"));
        List<PictureCase> cases = new ArrayList<>();
        for (JsonElement entry : JsonParser.parseString(list).getAsJsonObject().getAsJsonArray("cases")) {
            cases.add(new PictureCase(entry.getAsJsonObject(), data));
        }
        return cases;
    }

    String name() {
        return file() + " " + entry.get("width") + " x " + entry.get("height") + ", orientation "
                + entry.get("orientation") + ", " + entry.getAsJsonObject("processor").get("steps");
    }

    /** The path of a photo in the folder of photos; of other cases, their number and mode. */
    String file() {
        return entry.get("name").getAsString();
    }

    /** Whether the runtime made what is expected; else the reference did that docs/BUNDLE.md is transcribed in. */
    boolean expectedByRuntime() {
        return entry.get("expected_by").getAsString().equals("runtime");
    }

    ImageSettings settings() {
        return ImageSettingsJson.of(entry.getAsJsonObject("processor"));
    }

    Picture picture() throws IOException {
        int width = entry.get("width").getAsInt();
        int height = entry.get("height").getAsInt();
        int orientation = entry.get("orientation").getAsInt();
        if (entry.has("waves")) {
            JsonObject waves = entry.getAsJsonObject("waves");
            int[] argb = waves(width, height, waves.get("seed").getAsInt(), waves.get("opaque").getAsBoolean());
            return new Picture(width, height, argb, orientation);
        }
        int[] argb = new int[width * height];
        ByteBuffer.wrap(inflated("source")).order(ByteOrder.LITTLE_ENDIAN).asIntBuffer().get(argb);
        return new Picture(width, height, argb, orientation);
    }

    /** Null where the picture is refused. */
    byte @Nullable [] pixels() throws IOException {
        return entry.has("pixels") ? inflated("pixels") : null;
    }

    private byte[] inflated(String key) throws IOException {
        JsonObject place = entry.getAsJsonObject(key);
        int offset = place.get("offset").getAsInt();
        byte[] packed = Arrays.copyOfRange(data, offset, offset + place.get("bytes").getAsInt());
        try (InputStream stream = new InflaterInputStream(new ByteArrayInputStream(packed))) {
            return stream.readAllBytes();
        }
    }

    /** The same as {@code waves} of tests/android/picture_cases.py. */
    static int[] waves(int width, int height, int seed, boolean opaque) {
        int[] argb = new int[width * height];
        for (int y = 0, i = 0; y < height; y++) {
            for (int x = 0; x < width; x++, i++) {
                int alpha = opaque ? 255 : x + 2 * y;
                int red = x * 3 + y + seed;
                int green = y * 5 + x * x / 9;
                int blue = x * y / 3 + seed;
                argb[i] = (alpha & 255) << 24 | (red & 255) << 16 | (green & 255) << 8 | blue & 255;
            }
        }
        return argb;
    }
}
