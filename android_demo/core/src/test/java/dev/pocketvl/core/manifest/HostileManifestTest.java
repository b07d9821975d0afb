package dev.pocketvl.core.manifest;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.gson.JsonPrimitive;
import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.json.CanonicalJson;
import dev.pocketvl.core.json.StrictJson;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.TestFactory;

/** The manifests of tests/bundles/hostile, which the Python runtime is held against too; its README says what a case is. */
class HostileManifestTest {
    private static final Path ROOT = Path.of("..", "..");
    private static final String DIGEST_KEY = "manifest_sha256";
    private static final int LONGEST_LINE = 600;

    @TestFactory
    Stream<DynamicTest> aManifestIsReadOrRefusedAsTheCaseSays() throws IOException {
        return cases().stream()
                .map(each -> DynamicTest.dynamicTest(each.get("name").getAsString(), () -> check(each)));
    }

    @Test
    void theCasesAreMany() throws IOException {
        assertTrue(cases().size() >= 250);
    }

    private static void check(JsonObject each) throws IOException {
        ByteBuffer content = ByteBuffer.wrap(content(each));
        if (each.has("opens")) {
            Manifest.read(content, "manifest.json");
            return;
        }
        BundleException error =
                assertThrows(BundleException.class, () -> Manifest.read(content, "manifest.json"));
        String said = String.valueOf(error.getMessage());
        String wanted = each.get("refused").getAsString();
        assertTrue(said.contains(wanted), () -> "wanted: " + wanted + "\nsaid:   " + said);
        assertTrue(said.startsWith("manifest.json"), said);
        assertFalse(said.contains("\n"), said);
        assertTrue(said.length() < LONGEST_LINE, said);
    }

    private static List<JsonObject> cases() throws IOException {
        List<JsonObject> found = new ArrayList<>();
        try (DirectoryStream<Path> files =
                Files.newDirectoryStream(ROOT.resolve("tests/bundles/hostile"), "*.json")) {
            for (Path path : files) {
                JsonObject stored = JsonParser.parseString(Files.readString(path)).getAsJsonObject();
                for (JsonElement each : stored.getAsJsonArray("cases")) {
                    JsonObject one = each.getAsJsonObject();
                    if (!one.has("base")) {
                        one.add("base", stored.get("base"));
                    }
                    found.add(one);
                }
            }
        }
        return found;
    }

    private static byte[] content(JsonObject each) throws IOException {
        if (each.has("hex")) {
            String hex = each.get("hex").getAsString();
            byte[] bytes = new byte[hex.length() / 2];
            for (int i = 0; i < bytes.length; i++) {
                bytes[i] = (byte) Integer.parseInt(hex.substring(2 * i, 2 * i + 2), 16);
            }
            return bytes;
        }
        if (each.has("text")) {
            return expanded(each.get("text")).getAsString().getBytes(StandardCharsets.UTF_8);
        }
        String text = Files.readString(ROOT.resolve(each.get("base").getAsString()));
        if (each.has("text_edits")) {
            for (JsonElement edit : each.getAsJsonArray("text_edits")) {
                String find = edit.getAsJsonObject().get("find").getAsString();
                int at = text.indexOf(find);
                assertTrue(at >= 0, find);
                text = text.substring(0, at) + edit.getAsJsonObject().get("replace").getAsString()
                        + text.substring(at + find.length());
            }
            return text.getBytes(StandardCharsets.UTF_8);
        }
        JsonElement value = JsonParser.parseString(text);
        for (JsonElement edit : each.getAsJsonArray("edits")) {
            patch(value, edit.getAsJsonObject());
        }
        return ascii(each.has("sealed") && !each.get("sealed").getAsBoolean() ? value : sealed(value));
    }

    /** With the checksum made anew; zeros where there is no canonical form to have one. */
    private static JsonElement sealed(JsonElement value) {
        JsonObject bare = value.getAsJsonObject();
        bare.remove(DIGEST_KEY);
        bare.addProperty(DIGEST_KEY, CanonicalJson.sha256(StrictJson.parse(ByteBuffer.wrap(ascii(bare)), "case")));
        return bare;
    }

    private static byte[] ascii(JsonElement value) {
        StringBuilder made = new StringBuilder();
        value.toString().chars().forEach(c -> made.append(c < 128 ? "" + (char) c : String.format("\\u%04x", c)));
        return made.toString().getBytes(StandardCharsets.US_ASCII);
    }

    private static void patch(JsonElement value, JsonObject edit) {
        String path = edit.get("path").getAsString();
        int slash = path.lastIndexOf('/');
        JsonElement parent = at(value, path.substring(0, slash));
        String last = unescaped(path.substring(slash + 1));
        String op = edit.get("op").getAsString();
        if (op.equals("remove")) {
            JsonElement removed = parent.isJsonArray()
                    ? parent.getAsJsonArray().remove(Integer.parseInt(last))
                    : parent.getAsJsonObject().remove(last);
            assertTrue(removed != null, path);
            return;
        }
        JsonElement fresh = op.equals("copy")
                ? at(value, edit.get("from").getAsString()).deepCopy()
                : expanded(edit.get("value"));
        if (parent.isJsonObject()) {
            assertEquals(op.equals("replace"), parent.getAsJsonObject().has(last), path);
            parent.getAsJsonObject().add(last, fresh);
        } else if (op.equals("replace")) {
            parent.getAsJsonArray().set(Integer.parseInt(last), fresh);
        } else {
            assertEquals("-", last, "only appending is needed");
            parent.getAsJsonArray().add(fresh);
        }
    }

    private static JsonElement at(JsonElement value, String pointer) {
        JsonElement found = value;
        for (String key : pointer.isEmpty() ? new String[0] : pointer.substring(1).split("/", -1)) {
            found = found.isJsonArray()
                    ? found.getAsJsonArray().get(Integer.parseInt(key))
                    : found.getAsJsonObject().get(unescaped(key));
        }
        return found;
    }

    private static String unescaped(String key) {
        return key.replace("~1", "/").replace("~0", "~");
    }

    private static JsonElement expanded(JsonElement value) {
        if (value.isJsonArray()) {
            JsonArray made = new JsonArray();
            value.getAsJsonArray().forEach(item -> made.add(expanded(item)));
            return made;
        }
        if (!value.isJsonObject()) {
            return value;
        }
        JsonObject fields = value.getAsJsonObject();
        if (fields.has("$repeat")) {
            return repeated(expanded(fields.get("$repeat")), fields.get("times").getAsInt());
        }
        if (fields.has("$nest")) {
            JsonElement made = expanded(fields.get("$nest"));
            for (int i = 0; i < fields.get("times").getAsInt(); i++) {
                JsonArray outer = new JsonArray();
                outer.add(made);
                made = outer;
            }
            return made;
        }
        JsonObject made = new JsonObject();
        fields.entrySet().forEach(each -> made.add(each.getKey(), expanded(each.getValue())));
        return made;
    }

    private static JsonElement repeated(JsonElement value, int times) {
        if (value.isJsonPrimitive()) {
            return new JsonPrimitive(value.getAsString().repeat(times));
        }
        JsonArray made = new JsonArray();
        for (int i = 0; i < times; i++) {
            made.addAll(value.getAsJsonArray());
        }
        return made;
    }
}
