package dev.pocketvl.core.text;

import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.text.AddedTokens.AddedToken;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/** Finds added tokens in a text: the leftmost, and of those that start together the longest. */
final class AddedTokenMatcher {
    private final Node root = new Node(0);

    /** What may follow, in UTF-16 units, and the token that ends here. */
    private static final class Node {
        private final Map<Character, Node> children = new HashMap<>();
        private final int depth;
        private @Nullable AddedToken token;
        private int id;

        private Node(int depth) {
            this.depth = depth;
        }
    }

    /**
     * Adds a token under the text by which it is found.
     *
     * @throws BundleException the text is empty or another token's
     */
    void add(String text, AddedToken token, int id) {
        Node node = root;
        for (int at = 0; at < text.length(); at++) {
            int depth = at + 1;
            node = node.children.computeIfAbsent(text.charAt(at), unit -> new Node(depth));
        }
        if (node == root || node.token != null) {
            throw new BundleException(
                    "the added token " + token.content() + (node == root ? " is empty" : " equals another one")
                            + " once it is normalized");
        }
        node.token = token;
        node.id = id;
    }

    /** The tokens of a piece, and what stands between them. */
    List<Piece> split(Piece piece) {
        List<Piece> pieces = new ArrayList<>();
        String text = piece.text();
        int done = 0;
        for (int at = 0; at < text.length(); ) {
            Node node = longest(text, at);
            AddedToken token = node == null ? null : node.token;
            if (node == null || token == null) {
                at++;
                continue;
            }
            int end = at + node.depth;
            if (!token.singleWord() || isAlone(text, at, end)) {
                int start = token.left() ? Math.max(done, CharacterSets.skipWhiteSpaceBefore(text, at)) : at;
                int stop = token.right() ? CharacterSets.skipWhiteSpace(text, end) : end;
                piece.addPart(done, start, pieces);
                pieces.add(new Piece(token.content(), node.id, false));
                done = stop;
            }
            at = end;
        }
        piece.addPart(done, text.length(), pieces);
        return pieces;
    }

    private @Nullable Node longest(String text, int start) {
        Node found = null;
        Node node = root.children.get(text.charAt(start));
        for (int at = start + 1; node != null; at++) {
            found = node.token == null ? found : node;
            node = at < text.length() ? node.children.get(text.charAt(at)) : null;
        }
        return found;
    }

    private static boolean isAlone(String text, int start, int end) {
        boolean before = start > 0 && CharacterSets.WORD.contains(text.codePointBefore(start));
        boolean after = end < text.length() && CharacterSets.WORD.contains(text.codePointAt(end));
        return !before && !after;
    }
}
