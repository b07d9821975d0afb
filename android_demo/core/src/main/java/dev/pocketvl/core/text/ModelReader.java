package dev.pocketvl.core.text;

import com.google.gson.stream.JsonReader;
import com.google.gson.stream.JsonToken;
import dev.pocketvl.core.errors.BundleException;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** Reads the model of a tokenizer file as a stream: neither its vocabulary nor its merges are ever held as text. */
final class ModelReader {
    private static final int MOST_WORD_CHARS = 1_000;

    private final JsonReader reader;
    private final Vocabulary vocabulary = new Vocabulary();
    private final MergeTable merges = new MergeTable();
    private final TokenBytes scratch = new TokenBytes();
    private final Map<String, @Nullable Object> fields = new LinkedHashMap<>();
    private final List<String> early = new ArrayList<>();

    private boolean hasVocabulary;
    private boolean hasMerges;
    private boolean isList;
    private double[] scores = new double[0];

    private ModelReader(JsonReader reader) {
        this.reader = reader;
    }

    /** Reads the object that comes next. */
    static TokenModel read(JsonReader reader) throws IOException {
        return new ModelReader(reader).read();
    }

    private TokenModel read() throws IOException {
        reader.beginObject();
        while (reader.hasNext()) {
            String key = reader.nextName();
            if (fields.containsKey(key)) {
                throw new BundleException("model holds the key " + key + " twice");
            }
            Object value = null;
            if (key.equals("vocab")) {
                readVocabulary();
            } else if (key.equals("merges")) {
                readMerges();
            } else {
                value = JsonPart.read(reader, "model." + key);
            }
            fields.put(key, value);
        }
        reader.endObject();
        if (!hasVocabulary) {
            throw new BundleException("model has no vocab");
        }
        for (int index = 0; index < early.size(); index += 2) {
            addMerge(early.get(index), early.get(index + 1));
        }
        vocabulary.trim();
        merges.trim();
        return build(new JsonPart("model", fields));
    }

    private void readVocabulary() throws IOException {
        hasVocabulary = true;
        isList = reader.peek() == JsonToken.BEGIN_ARRAY;
        if (isList) {
            readPieces();
            return;
        }
        reader.beginObject();
        while (reader.hasNext()) {
            String token = reader.nextName();
            int id = JsonPart.integer(reader.nextLong(), "model.vocab's id of " + token);
            if (vocabulary.put(token, id) != Vocabulary.NO_ID) {
                throw new BundleException("model.vocab holds the token " + token + " twice");
            }
        }
        reader.endObject();
    }

    /** Reads pairs of token and score, which are ids in their order. */
    private void readPieces() throws IOException {
        int count = 0;
        scores = new double[1 << 10];
        reader.beginArray();
        while (reader.hasNext()) {
            if (count == scores.length) {
                scores = Arrays.copyOf(scores, 2 * count);
            }
            reader.beginArray();
            vocabulary.put(reader.nextString(), count);
            scores[count++] = reader.nextDouble();
            reader.endArray();
        }
        reader.endArray();
        scores = Arrays.copyOf(scores, count);
    }

    private void readMerges() throws IOException {
        hasMerges = true;
        reader.beginArray();
        while (reader.hasNext()) {
            String left;
            String right;
            if (reader.peek() == JsonToken.BEGIN_ARRAY) {
                reader.beginArray();
                left = reader.nextString();
                right = reader.nextString();
                reader.endArray();
            } else {
                String line = reader.nextString();
                if (line.startsWith("#version")) {
                    continue;
                }
                int space = line.indexOf(' ');
                if (space < 0 || line.indexOf(' ', space + 1) >= 0) {
                    throw new BundleException("model.merges holds \"" + line + "\", which is not two tokens");
                }
                left = line.substring(0, space);
                right = line.substring(space + 1);
            }
            if (hasVocabulary && fields.containsKey("continuing_subword_prefix")) {
                addMerge(left, right);
            } else {
                early.add(left);
                early.add(right);
            }
        }
        reader.endArray();
    }

    private void addMerge(String left, String right) {
        scratch.clear();
        scratch.append(left);
        int leftEnd = scratch.length();
        scratch.append(right);
        int rightEnd = scratch.length();
        int leftId = vocabulary.find(scratch.array(), 0, leftEnd);
        int rightId = vocabulary.find(scratch.array(), leftEnd, rightEnd);
        int both = Vocabulary.NO_ID;
        String prefix = optionalString(new JsonPart("model", fields), "continuing_subword_prefix");
        if (prefix == null || prefix.isEmpty()) {
            both = vocabulary.find(scratch.array(), 0, rightEnd);
        } else if (right.startsWith(prefix)) {
            both = vocabulary.find(left + right.substring(prefix.length()));
        }
        if (leftId == Vocabulary.NO_ID || rightId == Vocabulary.NO_ID || both == Vocabulary.NO_ID) {
            throw new BundleException(
                    "model.merges holds the pair " + left + " and " + right + ", which model.vocab lacks");
        }
        merges.add(leftId, rightId, both);
    }

    private TokenModel build(JsonPart model) {
        String type = fields.get("type") == null ? guessedType() : model.type();
        if (isList != type.equals("Unigram")) {
            throw new BundleException("model.vocab is not of the form that " + type + " has");
        }
        switch (type) {
            case "BPE":
                return bpe(model);
            case "WordPiece":
                int mostChars = model.integer("max_input_chars_per_word");
                if (mostChars > MOST_WORD_CHARS) {
                    throw new BundleException("model.max_input_chars_per_word is more than " + MOST_WORD_CHARS);
                }
                String prefix = model.string("continuing_subword_prefix");
                return new WordPieceModel(vocabulary, model.string("unk_token"), prefix, mostChars);
            case "WordLevel":
                return new WordLevelModel(vocabulary, model.string("unk_token"));
            case "Unigram":
                return unigram(model);
            default:
                throw new BundleException("the model " + type + " is not supported; export the bundle again");
        }
    }

    /** Files of old have no type. */
    private String guessedType() {
        if (hasMerges) {
            return "BPE";
        }
        if (isList) {
            return "Unigram";
        }
        return fields.containsKey("max_input_chars_per_word") ? "WordPiece" : "WordLevel";
    }

    private TokenModel bpe(JsonPart model) {
        if (!hasMerges) {
            throw new BundleException("model has no merges");
        }
        Object dropout = fields.get("dropout");
        if (dropout != null && !(dropout instanceof Number && ((Number) dropout).doubleValue() == 0)) {
            throw new BundleException("model.dropout is " + dropout + ": its ids would be random");
        }
        String prefix = optionalString(model, "continuing_subword_prefix");
        String suffix = optionalString(model, "end_of_word_suffix");
        return new BpeModel(
                vocabulary,
                merges,
                new BpeModel.BpeOptions(
                        optionalString(model, "unk_token"),
                        prefix == null ? "" : prefix,
                        suffix == null ? "" : suffix,
                        model.bool("fuse_unk", false),
                        model.bool("byte_fallback", false),
                        model.bool("ignore_merges", false)));
    }

    private TokenModel unigram(JsonPart model) {
        int unknown = Vocabulary.NO_ID;
        if (fields.get("unk_id") != null) {
            unknown = model.integer("unk_id");
            if (unknown >= scores.length) {
                throw new BundleException("model.unk_id is " + unknown + ", beyond the vocabulary");
            }
        }
        return new UnigramModel(vocabulary, scores, unknown, model.bool("byte_fallback", false));
    }

    private static @Nullable String optionalString(JsonPart model, String key) {
        return model.fields().get(key) == null ? null : model.string(key);
    }
}
