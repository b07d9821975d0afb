package dev.pocketvl.core.bundle;

import dev.pocketvl.core.json.CanonicalJson;
import dev.pocketvl.core.json.StrictJson;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;
import java.util.stream.Collectors;
import java.util.stream.Stream;

/** The bundles of tests/bundles, and copies of them to change. */
public final class TestBundles {
    private static final Path FOLDER = Path.of("..", "..", "tests", "bundles");

    private TestBundles() {}

    public static Path folder(String name) {
        return FOLDER.resolve(name);
    }

    public static Bundle open(String name) {
        return Bundle.open(new FolderSource(folder(name)));
    }

    /** A copy of a bundle in a new folder. */
    public static Path copy(String name, Path into) throws IOException {
        Path root = into.resolve("bundle");
        List<Path> paths;
        try (Stream<Path> walk = Files.walk(folder(name))) {
            paths = walk.collect(Collectors.toList());
        }
        for (Path path : paths) {
            Files.copy(path, root.resolve(folder(name).relativize(path).toString()));
        }
        return root;
    }

    /** Changes a bundle's manifest, and its checksum with it. */
    @SuppressWarnings("unchecked")
    public static void edit(Path root, Consumer<Map<String, Object>> edit) throws IOException {
        Path path = root.resolve("manifest.json");
        Object parsed = StrictJson.parse(ByteBuffer.wrap(Files.readAllBytes(path)), "manifest.json");
        Map<String, Object> fields = (Map<String, Object>) parsed;
        edit.accept(fields);
        fields.remove("manifest_sha256");
        fields.put("manifest_sha256", CanonicalJson.sha256(fields));
        Files.write(path, CanonicalJson.text(fields).getBytes(StandardCharsets.UTF_8));
    }

    /** What an object of parsed JSON has under a key. */
    @SuppressWarnings("unchecked")
    public static Map<String, Object> at(Map<String, Object> object, String... keys) {
        Map<String, Object> found = object;
        for (String key : keys) {
            found = (Map<String, Object>) found.get(key);
        }
        return found;
    }
}
