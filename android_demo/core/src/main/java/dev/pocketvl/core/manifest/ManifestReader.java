package dev.pocketvl.core.manifest;

import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.json.CanonicalJson;
import dev.pocketvl.core.json.JsonFields;
import dev.pocketvl.core.json.JsonValue;
import dev.pocketvl.core.json.StrictJson;
import java.nio.ByteBuffer;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.BiFunction;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/** Reads manifest.json in the order that docs/BUNDLE.md gives: form, version, checksum, keys, references. */
final class ManifestReader {
    private static final String FORMAT = "pocketvl-bundle";
    private static final String DIGEST_KEY = "manifest_sha256";
    private static final Pattern SHA256 = Pattern.compile("[0-9a-f]{64}");

    /** What a model takes in. */
    private enum Modality {
        IMAGE,
        TEXT,
        AUDIO
    }

    private ManifestReader() {}

    static Manifest read(ByteBuffer content, String where) {
        Object parsed = StrictJson.parse(content, where);
        if (!(parsed instanceof Map<?, ?> found) || !FORMAT.equals(found.get("format"))) {
            boolean old = parsed instanceof Map<?, ?> map && map.containsKey("schema_version");
            throw new BundleException(where + (old
                    ? " is of format 1, and this runtime reads 2.x; export the bundle again"
                    : " is no manifest of a bundle: its format is not '" + FORMAT + "'"));
        }
        Map<String, @Nullable Object> bare = new LinkedHashMap<>();
        found.forEach((key, value) -> bare.put((String) key, value));
        try {
            boolean newer = FormatVersion.isNewer(bare.get("version"));
            checkDigest(bare);
            Manifest manifest = manifest(JsonValue.file(bare, where, newer), newer);
            References.check(manifest);
            return manifest;
        } catch (BundleException error) {
            String said = String.valueOf(error.getMessage());
            throw said.startsWith(where) ? error : new BundleException(where + ": " + said, error);
        }
    }

    /** Holds a manifest against its checksum, and takes that out. */
    private static void checkDigest(Map<String, @Nullable Object> bare) {
        Object promised = bare.remove(DIGEST_KEY);
        if (promised == null) {
            throw new BundleException(DIGEST_KEY + " is missing; the manifest is damaged, copy the bundle again");
        }
        String digest = CanonicalJson.sha256(bare);
        if (!digest.equals(promised)) {
            throw new BundleException("is damaged or was edited: " + DIGEST_KEY + " is not "
                    + digest.substring(0, 12) + "..., which its content has; copy the bundle again");
        }
    }

    private static Manifest manifest(JsonValue value, boolean newer) {
        JsonFields top = value.fields("format", "version", "model", "processors", "graphs", "variants", "tasks",
                "files", "provenance", "extensions");
        JsonFields model = top.get("model").fields("name", "family", "modalities");
        model.get("modalities").items().forEach(each -> each.oneOf(Modality.class));
        Map<String, JsonValue> tasks = new LinkedHashMap<>(top.get("tasks").entries());
        if (newer) {
            tasks.values().removeIf(TaskReader::isOfUnknownKind);
        }
        Manifest manifest = new Manifest(
                top.get("version").string(),
                name(model, "name"),
                name(model, "family"),
                each(top.get("processors").entries(), (name, item) -> ProcessorReader.read(item)),
                each(top.get("graphs").entries(), (name, item) -> ComponentReader.read(item)),
                each(top.get("variants").entries(), (name, item) -> VariantReader.read(item)),
                each(tasks, (name, item) -> TaskReader.read(item)),
                each(top.get("files").entries(), (name, item) -> file(item)));
        top.get("provenance").entries().values().forEach(JsonValue::free);
        top.get("extensions").entries().values().forEach(JsonValue::free);
        return manifest;
    }

    /** The records of an object's values, by the same keys. */
    static <V> Map<String, V> each(Map<String, JsonValue> entries, BiFunction<String, JsonValue, V> read) {
        Map<String, V> made = new LinkedHashMap<>();
        entries.forEach((name, item) -> made.put(name, read.apply(name, item)));
        return made;
    }

    private static String name(JsonFields model, String key) {
        String text = model.get(key).string();
        int length = Names.characters(text);
        if (length > Names.MAX_NAME_CHARS) {
            throw model.refused(key + " has " + length + " characters, and at most " + Names.MAX_NAME_CHARS
                    + " may stand");
        }
        return text;
    }

    private static FileEntry file(JsonValue value) {
        JsonFields fields = value.fields("sha256", "bytes");
        String sha256 = fields.get("sha256").string();
        if (!SHA256.matcher(sha256).matches()) {
            throw value.refused("sha256 must be 64 lower-case hex digits");
        }
        return new FileEntry(sha256, fields.get("bytes").integer(0, Long.MAX_VALUE));
    }
}
