package dev.pocketvl.core.text;

import dev.pocketvl.core.text.TokenizerSettings.Canonicalize;
import dev.pocketvl.core.text.TokenizerSettings.Side;
import java.io.StringReader;
import java.util.Arrays;
import java.util.stream.Collectors;

/** Tokenizer files for tests, written in place. */
final class Documents {
    static final String WORDS =
            "{\"type\":\"WordLevel\",\"unk_token\":\"?\",\"vocab\":{\"?\":0,\"a\":1,\"b\":2,\"c\":3,\"\u2581a\":4,\"aa\":5}}";

    private Documents() {}

    /** A file with a model of whole words, and further fields. */
    static String words(String fields) {
        return "{" + fields + (fields.isEmpty() ? "" : ",") + "\"model\":" + WORDS + "}";
    }

    static Tokenizer open(String document, int length, Canonicalize... steps) {
        TokenizerSettings settings =
                new TokenizerSettings(length, 9, Side.RIGHT, Side.RIGHT, Arrays.asList(steps));
        return Tokenizer.open(settings, new StringReader(document));
    }

    /** The ids of a text, without padding, as a string. */
    static String ids(Tokenizer tokenizer, String text) {
        TokenIds ids = tokenizer.encode(text);
        StringBuilder out = new StringBuilder();
        for (int index = 0; index < ids.ids().length; index++) {
            out.append(ids.mask()[index] == 1 ? (out.length() == 0 ? "" : " ") + ids.ids()[index] : "");
        }
        return out.toString();
    }

    /** The pieces of a text, with | between. */
    static String pieces(PreTokenizer preTokenizer, String text) {
        return preTokenizer.split(Piece.of(text, true)).stream().map(Piece::text).collect(Collectors.joining("|"));
    }
}
