package dev.pocketvl.core.json;

import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.errors.Quoted;
import java.math.BigInteger;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/**
 * A value of a parsed JSON file that knows where it stands, so that every deviation from what is wanted names its key
 * path. All methods throw {@link BundleException} where the value is of another form.
 */
public final class JsonValue {
    private static final int MOST_KEY_CHARS = 60;
    private static final int MAX_DEPTH = 64;

    private final @Nullable Object value;
    private final String path;
    private final boolean ignoreUnknown;

    private JsonValue(@Nullable Object value, String path, boolean ignoreUnknown) {
        this.value = value;
        this.path = path;
        this.ignoreUnknown = ignoreUnknown;
    }

    /**
     * A whole file.
     *
     * @param value what {@link StrictJson} gave
     * @param where what to call it in messages
     * @param ignoreUnknown pass over keys that nobody asks for, as those of a newer minor version
     */
    public static JsonValue file(@Nullable Object value, String where, boolean ignoreUnknown) {
        return new JsonValue(value, where + ": ", ignoreUnknown);
    }

    /** An error about this value as a whole: its path, a colon, what is wrong. */
    public BundleException refused(String what) {
        return new BundleException(name() + ": " + what);
    }

    /** An error that says what is wrong with this value in a sentence that begins with its path. */
    public BundleException wrong(String what) {
        return new BundleException(name() + " " + what);
    }

    /** Whether it is null. */
    public boolean isNull() {
        return value == null;
    }

    /** Whether it is a string. */
    public boolean isString() {
        return value instanceof String;
    }

    /** Whether it is an object. */
    public boolean isObject() {
        return value instanceof Map;
    }

    /** Whether it is a number without fraction and exponent. */
    public boolean isInteger() {
        return value instanceof JsonNumber number && number.isInteger();
    }

    /** An error for a key that is not there. */
    public BundleException missing(String key) {
        return new BundleException(child(key) + " is missing");
    }

    /**
     * An object whose keys are fixed.
     *
     * @param keys those that it has; one that ends in {@code ?} may be missing
     */
    public JsonFields fields(String... keys) {
        Map<String, JsonValue> found = entries();
        Set<String> known = new LinkedHashSet<>();
        for (String key : keys) {
            boolean optional = key.endsWith("?");
            String name = optional ? key.substring(0, key.length() - 1) : key;
            if (!optional && !found.containsKey(name)) {
                throw missing(name);
            }
            known.add(name);
        }
        for (Map.Entry<String, JsonValue> each : found.entrySet()) {
            if (!ignoreUnknown && !known.contains(each.getKey())) {
                throw each.getValue().wrong("is not a key of this schema; known are " + list(known.stream().sorted().toArray()));
            }
        }
        return new JsonFields(this, found);
    }

    /** An object with any keys, in the order of the file. */
    public Map<String, JsonValue> entries() {
        if (!(value instanceof Map<?, ?> fields)) {
            throw wrongType("an object");
        }
        Map<String, JsonValue> found = new LinkedHashMap<>();
        fields.forEach((key, item) -> found.put((String) key, new JsonValue(item, child((String) key), ignoreUnknown)));
        return found;
    }

    /** A list. */
    public List<JsonValue> items() {
        if (!(value instanceof List<?> list)) {
            throw wrongType("a list");
        }
        List<JsonValue> found = new ArrayList<>();
        for (Object item : list) {
            found.add(new JsonValue(item, path + "[" + found.size() + "]", ignoreUnknown));
        }
        return found;
    }

    /** A list of so many. */
    public List<JsonValue> items(int count) {
        List<JsonValue> found = items();
        if (found.size() != count) {
            throw wrong("has " + found.size() + " items where " + count + " are wanted");
        }
        return found;
    }

    /** A string. */
    public String string() {
        if (value instanceof String string) {
            return string;
        }
        throw wrongType("a string");
    }

    /** A list of strings. */
    public List<String> strings() {
        return items().stream().map(JsonValue::string).collect(Collectors.toList());
    }

    /** The one string that may stand here. */
    public void literal(String wanted) {
        if (!wanted.equals(value)) {
            throw wrong("is " + shown() + "; " + Quoted.quoted(wanted) + " is wanted");
        }
    }

    /** One of several words, which are an enum's names in lower case. */
    public <E extends Enum<E>> E oneOf(Class<E> kind) {
        for (E each : kind.getEnumConstants()) {
            if (label(each).equals(value)) {
                return each;
            }
        }
        throw unknown(Arrays.stream(kind.getEnumConstants()).map(JsonValue::label).toArray());
    }

    /** An error for a word that is none of those known. */
    public BundleException unknown(Object... known) {
        return wrong("is " + shown() + "; known are " + list(known));
    }

    /** How an enum's constant is written in files. */
    public static String label(Enum<?> constant) {
        return constant.name().toLowerCase(Locale.ROOT);
    }

    /** True or false. */
    public boolean bool() {
        if (value instanceof Boolean found) {
            return found;
        }
        throw wrongType("true or false");
    }

    /** A finite number. */
    public double number() {
        if (!(value instanceof JsonNumber number)) {
            throw wrongType("a number");
        }
        double found = Double.parseDouble(number.text());
        if (Double.isInfinite(found)) {
            throw wrong("is not a finite number");
        }
        return found;
    }

    /** An integer from {@code least} to {@code most}; {@code what} begins the message for another one. */
    public long integer(long least, long most) {
        if (!(value instanceof JsonNumber number) || !number.isInteger()) {
            throw wrongType("an integer");
        }
        BigInteger found = new BigInteger(number.text());
        if (found.compareTo(BigInteger.valueOf(least)) < 0 || found.compareTo(BigInteger.valueOf(most)) > 0) {
            throw wrong(shown() + " must be " + least + " to " + most);
        }
        return found.longValue();
    }

    /** An integer of any size; one that a long does not hold becomes the nearest that it does. */
    public long saturated() {
        if (!(value instanceof JsonNumber number) || !number.isInteger()) {
            throw wrongType("an integer");
        }
        return clamped(new BigInteger(number.text()));
    }

    private static long clamped(BigInteger number) {
        return number.bitLength() < Long.SIZE ? number.longValue() : number.signum() < 0 ? Long.MIN_VALUE : Long.MAX_VALUE;
    }

    /** An integer, likewise. */
    public int integer(int least, int most) {
        return (int) integer((long) least, (long) most);
    }

    /** Any value: finite numbers, nested at most 64 deep. */
    public void free() {
        List<?> layer = Collections.singletonList(value);
        for (int depth = 0; depth < MAX_DEPTH; depth++) {
            List<@Nullable Object> next = new ArrayList<>();
            for (Object item : layer) {
                if (item instanceof JsonNumber number && Double.isInfinite(Double.parseDouble(number.text()))) {
                    throw wrong("holds a number that is not finite");
                }
                if (item instanceof Map<?, ?> fields) {
                    next.addAll(fields.values());
                } else if (item instanceof List<?> items) {
                    next.addAll(items);
                }
            }
            if (next.isEmpty()) {
                return;
            }
            layer = next;
        }
        throw wrong("is nested more than " + MAX_DEPTH + " deep");
    }

    private String name() {
        return path.endsWith(": ") ? path.substring(0, path.length() - 2) : path;
    }

    private String child(String key) {
        String shown = Quoted.shortened(key, MOST_KEY_CHARS);
        return path.endsWith(": ") ? path + shown : path + "." + shown;
    }

    private String shown() {
        return value instanceof String string ? Quoted.quoted(string) : Quoted.shortened(CanonicalJson.text(value), 100);
    }

    private static String list(Object... words) {
        String all = Arrays.stream(words).map(word -> "'" + word + "'").collect(Collectors.joining(", "));
        return Quoted.shortened("[" + all + "]", 100);
    }

    /** An error for a value of another type. */
    public BundleException wrongType(String wanted) {
        String found = value instanceof Map ? "an object"
                : value instanceof List ? "a list"
                : value instanceof String ? "a string"
                : value instanceof Boolean ? "a boolean"
                : value == null ? "null" : "a number";
        return wrong("must be " + wanted + ", not " + found);
    }
}
