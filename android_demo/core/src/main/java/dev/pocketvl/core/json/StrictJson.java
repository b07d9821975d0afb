package dev.pocketvl.core.json;

import com.google.gson.Strictness;
import com.google.gson.stream.JsonReader;
import com.google.gson.stream.JsonToken;
import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.errors.Quoted;
import java.io.IOException;
import java.io.StringReader;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;

/**
 * Parses JSON as RFC 8259 has it and nothing else: UTF-8 without a byte order mark, no NaN, no key twice in an object.
 * Objects become maps in the order of the file, arrays lists, numbers {@link JsonNumber}.
 */
public final class StrictJson {
    private static final Pattern PLACE = Pattern.compile("line \\d+ column \\d+");

    private StrictJson() {}

    /**
     * Parses a file.
     *
     * @param content the file, from position to limit
     * @param where what to call it in messages
     * @throws BundleException it is not such JSON
     */
    public static @Nullable Object parse(ByteBuffer content, String where) {
        String text;
        try {
            text = StandardCharsets.UTF_8.newDecoder().decode(content.duplicate()).toString();
        } catch (CharacterCodingException error) {
            throw damaged(where, "it is not UTF-8", error);
        }
        if (text.startsWith("\ufeff")) {
            throw damaged(where, "it begins with a byte order mark", null);
        }
        JsonReader reader = new JsonReader(new StringReader(text));
        reader.setStrictness(Strictness.STRICT);
        try {
            Object value = read(reader, where);
            if (reader.peek() != JsonToken.END_DOCUMENT) {
                throw damaged(where, "something follows the value", null);
            }
            return value;
        } catch (IOException error) {
            Matcher place = PLACE.matcher(String.valueOf(error.getMessage()));
            throw damaged(where, place.find() ? place.group() : "it ends too early", error);
        }
    }

    private static @Nullable Object read(JsonReader reader, String where) throws IOException {
        switch (reader.peek()) {
            case BEGIN_OBJECT:
                return readObject(reader, where);
            case BEGIN_ARRAY:
                List<@Nullable Object> items = new ArrayList<>();
                reader.beginArray();
                while (reader.hasNext()) {
                    items.add(read(reader, where));
                }
                reader.endArray();
                return items;
            case STRING:
                return reader.nextString();
            case NUMBER:
                return new JsonNumber(reader.nextString());
            case BOOLEAN:
                return reader.nextBoolean();
            default:
                reader.nextNull();
                return null;
        }
    }

    private static Map<String, @Nullable Object> readObject(JsonReader reader, String where) throws IOException {
        Map<String, @Nullable Object> fields = new LinkedHashMap<>();
        reader.beginObject();
        while (reader.hasNext()) {
            String key = reader.nextName();
            Object value = read(reader, where);
            if (fields.containsKey(key)) {
                throw damaged(where, "key " + Quoted.quoted(key) + " stands twice", null);
            }
            fields.put(key, value);
        }
        reader.endObject();
        return fields;
    }

    private static BundleException damaged(String where, String what, @Nullable Throwable cause) {
        return new BundleException(
                where + " is not JSON (" + what + "); it is damaged, copy the bundle again", cause);
    }
}
