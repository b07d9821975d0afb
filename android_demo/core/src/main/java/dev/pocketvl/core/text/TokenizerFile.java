package dev.pocketvl.core.text;

import com.google.gson.Strictness;
import com.google.gson.stream.JsonReader;
import com.google.gson.stream.JsonToken;
import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.errors.InputException;
import java.io.IOException;
import java.io.Reader;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * A tokenizer.json, read.
 *
 * @param added tokens, and the normalizer of what stands between them
 * @param preTokenizer splits that into words
 * @param model turns words into ids
 * @param specials stand around these
 */
record TokenizerFile(
        AddedTokens added, PreTokenizer preTokenizer, TokenModel model, SpecialTokens specials) {

    /**
     * Reads a file. What it says of padding, truncation and decoding is set aside.
     *
     * @throws BundleException it is damaged, or holds a part that is not supported
     */
    static TokenizerFile read(Reader source) {
        JsonReader reader = new JsonReader(source);
        reader.setStrictness(Strictness.STRICT);
        try {
            TokenizerFile file = read(reader);
            if (reader.peek() != JsonToken.END_DOCUMENT) {
                throw new BundleException("the tokenizer file goes on behind its end");
            }
            return file;
        } catch (IOException | IllegalStateException | NumberFormatException error) {
            throw new BundleException("the tokenizer file cannot be read (" + firstLine(error) + ")", error);
        } catch (InputException error) {
            throw new BundleException("the tokenizer file has an added token that grows without bounds", error);
        }
    }

    private static TokenizerFile read(JsonReader reader) throws IOException {
        Set<String> keys = new HashSet<>();
        @Nullable Object normalizer = null;
        @Nullable Object preTokenizer = null;
        @Nullable Object postProcessor = null;
        List<JsonPart> added = Collections.emptyList();
        TokenModel model = null;
        reader.beginObject();
        while (reader.hasNext()) {
            String key = reader.nextName();
            if (!keys.add(key)) {
                throw new BundleException("the tokenizer file holds the key " + key + " twice");
            }
            switch (key) {
                case "version":
                    checkVersion(JsonPart.read(reader, key));
                    break;
                case "model":
                    model = ModelReader.read(reader);
                    break;
                case "normalizer":
                    normalizer = JsonPart.read(reader, key);
                    break;
                case "pre_tokenizer":
                    preTokenizer = JsonPart.read(reader, key);
                    break;
                case "post_processor":
                    postProcessor = JsonPart.read(reader, key);
                    break;
                case "added_tokens":
                    added = addedTokens(JsonPart.read(reader, key));
                    break;
                default:
                    reader.skipValue();
                    break;
            }
        }
        reader.endObject();
        if (model == null) {
            throw new BundleException("the tokenizer file has no model");
        }
        Normalizer rewriting = normalizer == null ? null : NormalizerReader.build(part(normalizer, "normalizer"));
        PreTokenizer splitting =
                preTokenizer == null
                        ? Collections::singletonList
                        : PreTokenizerReader.build(part(preTokenizer, "pre_tokenizer"));
        SpecialTokens specials =
                postProcessor == null ? SpecialTokens.NONE : SpecialTokens.of(part(postProcessor, "post_processor"));
        return new TokenizerFile(new AddedTokens(added, model, rewriting), splitting, model, specials);
    }

    private static void checkVersion(@Nullable Object version) {
        if (!"1.0".equals(version)) {
            throw new BundleException("the tokenizer file has the version " + version + ", and 1.0 is read");
        }
    }

    private static List<JsonPart> addedTokens(@Nullable Object value) {
        return new JsonPart("the tokenizer file", Collections.singletonMap("added_tokens", value))
                .parts("added_tokens");
    }

    private static JsonPart part(Object value, String where) {
        if (!(value instanceof JsonPart)) {
            throw new BundleException(where + " is not an object");
        }
        return (JsonPart) value;
    }

    private static String firstLine(Exception error) {
        String message = String.valueOf(error.getMessage());
        int end = message.indexOf('\n');
        return end < 0 ? message : message.substring(0, end);
    }
}
