package dev.pocketvl.core.text;

import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.text.PreTokenizers.Prepend;
import java.util.ArrayList;
import java.util.List;

/** Builds pre-tokenizers from what a tokenizer file says of them. */
final class PreTokenizerReader {
    private PreTokenizerReader() {}

    /**
     * Builds one.
     *
     * @throws BundleException its type is not supported, or a parameter is missing
     */
    static PreTokenizer build(JsonPart part) {
        switch (part.type()) {
            case "Sequence":
                List<PreTokenizer> parts = new ArrayList<>();
                for (JsonPart each : part.parts("pretokenizers")) {
                    parts.add(build(each));
                }
                return PreTokenizers.sequence(parts);
            case "ByteLevel":
                part.bool("trim_offsets"); // of no consequence for ids; the library wants it
                return PreTokenizers.byteLevel(part.bool("add_prefix_space"), part.bool("use_regex", true));
            case "Split":
                SplitBehavior behavior = SplitBehavior.of(part.string("behavior"));
                return PreTokenizers.finder(NormalizerReader.finder(part), behavior, part.bool("invert"));
            case "CharDelimiterSplit":
                return PreTokenizers.finder(
                        SpanFinder.literal(character(part, "delimiter")), SplitBehavior.REMOVED, false);
            case "Whitespace":
                return PreTokenizers.whitespace();
            case "WhitespaceSplit":
                return PreTokenizers.whitespaceSplit();
            case "BertPreTokenizer":
                return PreTokenizers.bert();
            case "Punctuation":
                boolean isolated = part.fields().get("behavior") == null;
                return PreTokenizers.punctuation(
                        isolated ? SplitBehavior.ISOLATED : SplitBehavior.of(part.string("behavior")));
            case "Digits":
                return PreTokenizers.digits(part.bool("individual_digits"));
            case "Metaspace":
                return metaspace(part);
            default:
                throw new BundleException(
                        part.where() + " has the type " + part.type() + ", which is not supported; export the bundle again");
        }
    }

    private static PreTokenizer metaspace(JsonPart part) {
        Prepend prepend = Prepend.ALWAYS;
        if (part.fields().get("prepend_scheme") != null) {
            prepend = scheme(part);
        }
        if (!part.bool("add_prefix_space", true)) {
            if (prepend != Prepend.NEVER) {
                throw new BundleException(part.where() + ".add_prefix_space contradicts its prepend_scheme");
            }
        }
        return PreTokenizers.metaspace(character(part, "replacement"), prepend, part.bool("split", true));
    }

    private static Prepend scheme(JsonPart part) {
        switch (part.string("prepend_scheme")) {
            case "always":
                return Prepend.ALWAYS;
            case "first":
                return Prepend.FIRST;
            case "never":
                return Prepend.NEVER;
            default:
                throw part.wrong("prepend_scheme", "always, first or never");
        }
    }

    private static String character(JsonPart part, String key) {
        String text = part.string(key);
        if (text.codePointCount(0, text.length()) != 1) {
            throw part.wrong(key, "one character");
        }
        return text;
    }
}
