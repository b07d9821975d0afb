package dev.pocketvl.core.text;

import com.google.gson.stream.JsonReader;
import dev.pocketvl.core.errors.BundleException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * An object of a tokenizer file, read whole; for all but vocabularies and merges.
 *
 * @param where it stands, for messages
 * @param fields by key: null, a Boolean, a Long, a Double, a String, a List or a further part
 */
record JsonPart(String where, Map<String, @Nullable Object> fields) {
    private static final int DEEPEST = 50;

    /** Reads the value that comes next. */
    static @Nullable Object read(JsonReader reader, String where) throws IOException {
        return read(reader, where, 0);
    }

    private static @Nullable Object read(JsonReader reader, String where, int depth) throws IOException {
        if (depth > DEEPEST) {
            throw new BundleException(where + " is nested too deeply");
        }
        switch (reader.peek()) {
            case BEGIN_OBJECT:
                return readObject(reader, where, depth);
            case BEGIN_ARRAY:
                List<@Nullable Object> items = new ArrayList<>();
                reader.beginArray();
                while (reader.hasNext()) {
                    items.add(read(reader, where + "[" + items.size() + "]", depth + 1));
                }
                reader.endArray();
                return items;
            case NULL:
                reader.nextNull();
                return null;
            case BOOLEAN:
                return reader.nextBoolean();
            case NUMBER:
                String number = reader.nextString();
                if (number.matches("-?[0-9]{1,18}")) {
                    return Long.valueOf(number);
                }
                return Double.valueOf(number);
            default:
                return reader.nextString();
        }
    }

    private static JsonPart readObject(JsonReader reader, String where, int depth) throws IOException {
        Map<String, @Nullable Object> fields = new LinkedHashMap<>();
        reader.beginObject();
        while (reader.hasNext()) {
            String key = reader.nextName();
            Object value = read(reader, where + "." + key, depth + 1);
            if (fields.containsKey(key)) {
                throw new BundleException(where + " holds the key " + key + " twice");
            }
            fields.put(key, value);
        }
        reader.endObject();
        return new JsonPart(where, fields);
    }

    String type() {
        return string("type");
    }

    String string(String key) {
        return required(key, String.class, "a string");
    }

    boolean bool(String key) {
        return required(key, Boolean.class, "true or false");
    }

    /** A boolean, or what stands for it where the key is missing or null. */
    boolean bool(String key, boolean otherwise) {
        return fields.get(key) == null ? otherwise : bool(key);
    }

    /** A number of 0 to 2^31 - 1. */
    int integer(String key) {
        return integer(required(key, Long.class, "an integer"), where + "." + key);
    }

    JsonPart part(String key) {
        return required(key, JsonPart.class, "an object");
    }

    /** The objects of a list. */
    List<JsonPart> parts(String key) {
        List<JsonPart> parts = new ArrayList<>();
        for (Object item : list(key)) {
            if (!(item instanceof JsonPart)) {
                throw wrong(key, "a list of objects");
            }
            parts.add((JsonPart) item);
        }
        return parts;
    }

    /** The integers of a list. */
    List<Integer> integers(String key) {
        List<Integer> integers = new ArrayList<>();
        for (Object item : list(key)) {
            if (!(item instanceof Long)) {
                throw wrong(key, "a list of integers");
            }
            integers.add(integer((Long) item, where + "." + key));
        }
        return integers;
    }

    List<?> list(String key) {
        return required(key, List.class, "a list");
    }

    /** Checks that an id or a count fits. */
    static int integer(long value, String where) {
        if (value < 0 || value > Integer.MAX_VALUE) {
            throw new BundleException(where + " is " + value + ", and 0 to " + Integer.MAX_VALUE + " is wanted");
        }
        return (int) value;
    }

    BundleException wrong(String key, String wanted) {
        return new BundleException(where + "." + key + " is not " + wanted);
    }

    private <T> T required(String key, Class<T> type, String wanted) {
        Object value = fields.get(key);
        if (!type.isInstance(value)) {
            throw wrong(key, wanted);
        }
        return type.cast(value);
    }
}
