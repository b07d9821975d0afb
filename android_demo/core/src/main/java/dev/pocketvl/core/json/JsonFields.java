package dev.pocketvl.core.json;

import dev.pocketvl.core.errors.BundleException;
import java.util.Map;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/** An object of a JSON file whose keys were checked. */
public final class JsonFields {
    private final JsonValue object;
    private final Map<String, JsonValue> found;

    JsonFields(JsonValue object, Map<String, JsonValue> found) {
        this.object = object;
        this.found = found;
    }

    /** The value of a key that must be there. */
    public JsonValue get(String key) {
        return Objects.requireNonNull(found.get(key), key);
    }

    /** The value of a key that may be missing or null; null for both. */
    public @Nullable JsonValue find(String key) {
        JsonValue value = found.get(key);
        return value == null || value.isNull() ? null : value;
    }

    /** The string of a key that may be missing or null. */
    public @Nullable String findString(String key) {
        JsonValue value = find(key);
        return value == null ? null : value.string();
    }

    /** An error about the object as a whole. */
    public BundleException refused(String what) {
        return object.refused(what);
    }
}
