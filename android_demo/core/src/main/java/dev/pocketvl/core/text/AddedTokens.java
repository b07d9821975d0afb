package dev.pocketvl.core.text;

import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.text.Normalizer.Normalized;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** Tokens that are looked for in the text itself, before it is split into words. */
final class AddedTokens {
    private final @Nullable Normalizer normalizer;
    private final AddedTokenMatcher plain = new AddedTokenMatcher();
    private final AddedTokenMatcher normalized = new AddedTokenMatcher();

    /**
     * Builds them.
     *
     * @param parts what the file says of each
     * @param model which may know their ids
     * @param normalizer of the text, or null
     * @throws BundleException two are equal once they are normalized, or one is empty
     */
    AddedTokens(List<JsonPart> parts, TokenModel model, @Nullable Normalizer normalizer) {
        this.normalizer = normalizer;
        Map<String, Integer> ids = new HashMap<>();
        Map<Integer, AddedToken> tokens = new LinkedHashMap<>();
        int next = model.size();
        for (JsonPart part : parts) {
            AddedToken token = AddedToken.of(part);
            if (token.content().isEmpty()) {
                continue;
            }
            Integer known = ids.get(token.content());
            int id = known != null ? known : model.find(token.content());
            if (id == Vocabulary.NO_ID) {
                id = next++; // whatever the file says
            }
            ids.put(token.content(), id);
            tokens.put(id, token);
        }
        for (Map.Entry<Integer, AddedToken> entry : tokens.entrySet()) {
            AddedToken token = entry.getValue();
            if (token.normalized()) {
                normalized.add(normalizedText(token.content()), token, entry.getKey());
            } else {
                plain.add(token.content(), token, entry.getKey());
            }
        }
    }

    /**
     * An added token as the file has it.
     *
     * @param content of the token
     * @param singleWord matches only where no word character stands beside it
     * @param left takes the white space before it, too
     * @param right takes the white space behind it, too
     * @param normalized is looked for in the normalized text
     */
    record AddedToken(String content, boolean singleWord, boolean left, boolean right, boolean normalized) {
        private static AddedToken of(JsonPart part) {
            part.integer("id"); // the library wants it, and sets it aside
            part.bool("special");
            return new AddedToken(
                    part.string("content"),
                    part.bool("single_word"),
                    part.bool("lstrip"),
                    part.bool("rstrip"),
                    part.bool("normalized"));
        }
    }

    /** Finds added tokens, and normalizes what stands between them. */
    List<Piece> split(String text) {
        List<Piece> pieces = new ArrayList<>();
        for (Piece piece : plain.split(Piece.of(text, true))) {
            if (piece.isToken()) {
                pieces.add(piece);
            } else {
                Normalized each = apply(new Normalized(piece.text(), piece.atStart()));
                pieces.addAll(normalized.split(Piece.of(each.text(), each.atStart())));
            }
        }
        return pieces;
    }

    private String normalizedText(String content) {
        return apply(new Normalized(content, true)).text();
    }

    private Normalized apply(Normalized text) {
        return normalizer == null ? text : normalizer.normalize(text);
    }
}
