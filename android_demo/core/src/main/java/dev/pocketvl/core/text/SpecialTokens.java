package dev.pocketvl.core.text;

import dev.pocketvl.core.errors.BundleException;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;

/**
 * What a post-processor puts around the tokens of a text.
 *
 * @param before ids
 * @param after ids
 */
record SpecialTokens(List<Integer> before, List<Integer> after) {
    static final SpecialTokens NONE = new SpecialTokens(Collections.emptyList(), Collections.emptyList());

    int count() {
        return before.size() + after.size();
    }

    /**
     * Reads a post-processor.
     *
     * @throws BundleException its type is not supported, or it does not hold the text exactly once
     */
    static SpecialTokens of(JsonPart part) {
        switch (part.type()) {
            case "ByteLevel":
                return NONE; // it trims offsets only
            case "BertProcessing":
            case "RobertaProcessing":
                return new SpecialTokens(pairId(part, "cls"), pairId(part, "sep"));
            case "TemplateProcessing":
                return ofTemplate(part);
            case "Sequence":
                return ofSequence(part);
            default:
                throw new BundleException(
                        part.where() + " has the type " + part.type() + ", which is not supported; export the bundle again");
        }
    }

    private static SpecialTokens ofSequence(JsonPart part) {
        SpecialTokens all = NONE;
        for (JsonPart each : part.parts("processors")) {
            SpecialTokens one = of(each);
            if (all.count() > 0 && one.count() > 0) {
                throw new BundleException(part.where() + " adds special tokens twice, which is not supported");
            }
            all = one.count() > 0 ? one : all;
        }
        return all;
    }

    private static SpecialTokens ofTemplate(JsonPart part) {
        List<Integer> before = new ArrayList<>();
        List<Integer> after = new ArrayList<>();
        JsonPart tokens = part.part("special_tokens");
        int texts = 0;
        for (JsonPart piece : part.parts("single")) {
            if (piece.fields().containsKey("Sequence")) {
                texts += piece.part("Sequence").string("id").equals("A") ? 1 : 2;
            } else {
                String name = piece.part("SpecialToken").string("id");
                (texts == 0 ? before : after).addAll(tokens.part(name).integers("ids"));
            }
        }
        if (texts != 1) {
            throw new BundleException(part.where() + ".single does not hold the text exactly once");
        }
        return new SpecialTokens(before, after);
    }

    private static List<Integer> pairId(JsonPart part, String key) {
        List<?> pair = part.list(key);
        if (pair.size() != 2 || !(pair.get(1) instanceof Long)) {
            throw part.wrong(key, "a token and its id");
        }
        return Collections.singletonList(JsonPart.integer((Long) pair.get(1), part.where() + "." + key));
    }
}
