package dev.pocketvl.core.text;

import java.util.Arrays;

/** WordPiece: the longest token that a word starts with, then the longest of the rest, and so on. */
final class WordPieceModel implements TokenModel {
    private final Vocabulary vocabulary;
    private final int unknownId;
    private final byte[] prefix;
    private final int mostChars;

    /**
     * Makes a model.
     *
     * @param vocabulary all tokens
     * @param unknownToken stands for words that cannot be made of tokens
     * @param prefix of tokens that do not start a word
     * @param mostChars longer words are unknown
     */
    WordPieceModel(Vocabulary vocabulary, String unknownToken, String prefix, int mostChars) {
        this.vocabulary = vocabulary;
        this.mostChars = mostChars;
        unknownId = vocabulary.find(unknownToken);
        TokenBytes bytes = new TokenBytes();
        bytes.append(prefix);
        this.prefix = Arrays.copyOf(bytes.array(), bytes.length());
    }

    @Override
    public Vocabulary vocabulary() {
        return vocabulary;
    }

    @Override
    public void tokenize(String word, IntList ids) {
        IntList found = new IntList();
        boolean readable = word.codePointCount(0, word.length()) <= mostChars && split(word, found);
        if (!readable) {
            ids.add(TokenModel.known(unknownId));
            return;
        }
        for (int index = 0; index < found.size(); index++) {
            ids.add(found.get(index));
        }
    }

    private boolean split(String word, IntList found) {
        TokenBytes buffer = new TokenBytes();
        for (int count = 0; count < prefix.length; count++) {
            buffer.append(0); // room for the prefix, which is written right before each token's start
        }
        buffer.append(word);
        byte[] bytes = buffer.array();
        int end = buffer.length();
        int[] hashes = new int[Math.min(end, vocabulary.longest()) + 1];
        int start = prefix.length;
        while (start < end) {
            int from = start;
            if (start > prefix.length) {
                from = start - prefix.length;
                System.arraycopy(prefix, 0, bytes, from, prefix.length);
            }
            int next = longest(bytes, from, start, end, hashes, found);
            if (next < 0) {
                return false;
            }
            start = next;
        }
        return true;
    }

    /** Appends the longest token that stands from an index on, and returns its end, or -1. */
    private int longest(byte[] bytes, int from, int start, int end, int[] hashes, IntList found) {
        int last = Math.min(end, from + vocabulary.longest());
        int hash = Vocabulary.hashStart();
        for (int at = from; at < last; at++) {
            hash = Vocabulary.hash(bytes, at, at + 1, hash);
            hashes[at + 1 - from] = hash;
        }
        for (int stop = last; stop > start; stop--) {
            boolean whole = stop == end || (bytes[stop] & 0xC0) != 0x80;
            int id = whole ? vocabulary.find(hashes[stop - from], bytes, from, stop) : Vocabulary.NO_ID;
            if (id != Vocabulary.NO_ID) {
                found.add(id);
                return stop;
            }
        }
        return -1;
    }
}
