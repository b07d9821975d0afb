package dev.pocketvl.core.text;

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/** Unigram: of all ways to cut a word into tokens, the one whose scores have the largest sum. */
final class UnigramModel implements TokenModel {
    private static final double UNKNOWN_PENALTY = 10;

    private final Vocabulary vocabulary;
    private final double[] scores;
    private final int unknownId;
    private final double unknownScore;
    private final @Nullable ByteTokens byteTokens;
    private final TokenTrie trie;

    /**
     * Makes a model.
     *
     * @param vocabulary all tokens; ids count them from 0, and of equal ones the last counts
     * @param scores by id
     * @param unknownId of the token that stands for characters that no token holds, or {@link Vocabulary#NO_ID}
     * @param byteFallback makes tokens of the bytes of such characters
     */
    UnigramModel(Vocabulary vocabulary, double[] scores, int unknownId, boolean byteFallback) {
        this.vocabulary = vocabulary;
        this.scores = scores;
        this.unknownId = unknownId;
        double least = Double.POSITIVE_INFINITY;
        for (double score : scores) {
            least = score < least ? score : least;
        }
        unknownScore = least - UNKNOWN_PENALTY;
        byteTokens = byteFallback ? new ByteTokens(vocabulary) : null;
        trie = new TokenTrie(vocabulary);
    }

    @Override
    public Vocabulary vocabulary() {
        return vocabulary;
    }

    @Override
    public int size() {
        return scores.length;
    }

    @Override
    public void tokenize(String word, IntList ids) {
        byte[] bytes = word.getBytes(StandardCharsets.UTF_8);
        int[] starts = new int[bytes.length + 1];
        int[] tokens = new int[bytes.length + 1];
        findBestPath(bytes, starts, tokens);
        appendPath(bytes, starts, tokens, ids);
    }

    /** Finds the best way to each index: the token that ends there, and where it starts. */
    private void findBestPath(byte[] bytes, int[] starts, int[] tokens) {
        double[] best = new double[bytes.length + 1];
        Arrays.fill(starts, -1);
        for (int at = 0; at < bytes.length; ) {
            int next = at + width(bytes[at]);
            boolean single = false;
            TokenTrie.Cursor cursor = trie.begin(bytes, at);
            for (int end = at + 1; end <= bytes.length; end++) {
                int id = cursor.next();
                if (id != Vocabulary.NO_ID) {
                    improve(best, starts, tokens, at, end, id, scores[id]);
                    single |= end == next;
                }
                if (cursor.isExhausted()) {
                    break;
                }
            }
            if (!single) {
                improve(best, starts, tokens, at, next, unknownId, unknownScore);
            }
            at = next;
        }
    }

    private static void improve(
            double[] best, int[] starts, int[] tokens, int start, int end, int id, double score) {
        double sum = score + best[start];
        if (starts[end] < 0 || sum > best[end]) {
            TokenModel.known(id);
            best[end] = sum;
            starts[end] = start;
            tokens[end] = id;
        }
    }

    /** Appends the tokens of the best way; neighbouring unknown ones are one. */
    private void appendPath(byte[] bytes, int[] starts, int[] tokens, IntList ids) {
        IntList edges = new IntList();
        for (int end = bytes.length; end > 0; ) {
            edges.add(end);
            int start = starts[end];
            if (tokens[end] == unknownId) {
                while (start > 0 && tokens[start] == unknownId) {
                    start = starts[start];
                }
            }
            end = start;
        }
        int start = 0;
        for (int index = edges.size() - 1; index >= 0; index--) {
            int end = edges.get(index);
            appendToken(bytes, start, end, ids);
            start = end;
        }
    }

    private void appendToken(byte[] bytes, int start, int end, IntList ids) {
        int id = vocabulary.find(bytes, start, end);
        if (id != Vocabulary.NO_ID) {
            ids.add(id);
        } else if (byteTokens != null && byteTokens.holdAll(bytes, start, end)) {
            for (int index = start; index < end; index++) {
                ids.add(byteTokens.id(bytes[index]));
            }
        } else {
            ids.add(TokenModel.known(unknownId));
        }
    }

    private static int width(byte first) {
        int lead = first & 0xFF;
        return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    }
}
