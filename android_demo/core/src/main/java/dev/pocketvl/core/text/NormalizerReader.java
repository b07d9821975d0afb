package dev.pocketvl.core.text;

import dev.pocketvl.core.errors.BundleException;
import java.text.Normalizer.Form;
import java.util.ArrayList;
import java.util.List;

/** Builds normalizers from what a tokenizer file says of them. */
final class NormalizerReader {
    private NormalizerReader() {}

    /**
     * Builds one.
     *
     * @throws BundleException its type is not supported, or a parameter is missing
     */
    static Normalizer build(JsonPart part) {
        switch (part.type()) {
            case "Sequence":
                return sequence(part.parts("normalizers"));
            case "NFC":
                return new NormalForm(Form.NFC);
            case "NFD":
                return new NormalForm(Form.NFD);
            case "NFKC":
                return new NormalForm(Form.NFKC);
            case "NFKD":
                return new NormalForm(Form.NFKD);
            case "Lowercase":
                return CharacterNormalizers.lowercase();
            case "StripAccents":
                return CharacterNormalizers.stripAccents();
            case "Nmt":
                return CharacterNormalizers.nmt();
            case "ByteLevel":
                return CharacterNormalizers.byteLevel();
            case "Prepend":
                return CharacterNormalizers.prepend(part.string("prepend"));
            case "Strip":
                return CharacterNormalizers.strip(part.bool("strip_left"), part.bool("strip_right"));
            case "Replace":
                return new ReplaceNormalizer(finder(part), part.string("content"));
            case "Precompiled":
                return new PrecompiledNormalizer(part.string("precompiled_charsmap"));
            case "BertNormalizer":
                return bert(part);
            default:
                throw new BundleException(
                        part.where() + " has the type " + part.type() + ", which is not supported; export the bundle again");
        }
    }

    private static Normalizer bert(JsonPart part) {
        boolean lowercase = part.bool("lowercase");
        return new BertNormalizer(
                part.bool("clean_text"),
                part.bool("handle_chinese_chars"),
                part.bool("strip_accents", lowercase),
                lowercase);
    }

    private static Normalizer sequence(List<JsonPart> parts) {
        List<Normalizer> normalizers = new ArrayList<>();
        for (JsonPart part : parts) {
            normalizers.add(build(part));
        }
        return given -> {
            Normalizer.Normalized text = given;
            for (Normalizer normalizer : normalizers) {
                text = normalizer.normalize(text);
                Normalizer.checkLength(text.text().length());
            }
            return text;
        };
    }

    /** What finds the pattern of a part. */
    static SpanFinder finder(JsonPart part) {
        JsonPart pattern = part.part("pattern");
        if (pattern.fields().size() != 1) {
            throw part.wrong("pattern", "a String or a Regex");
        }
        return pattern.fields().containsKey("Regex")
                ? SpanFinder.pattern(pattern.string("Regex"))
                : SpanFinder.literal(pattern.string("String"));
    }
}
