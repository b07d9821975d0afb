package dev.pocketvl.core.text;

import org.jspecify.annotations.Nullable;

/** Byte pair encoding: starts from single characters and merges neighbours, the pair of the lowest rank first. */
final class BpeModel implements TokenModel {
    private final Vocabulary vocabulary;
    private final MergeTable merges;
    private final BpeOptions options;
    private final int unknownId;
    private final @Nullable ByteTokens byteTokens;

    /**
     * What a file says of the model.
     *
     * @param unknownToken stands for characters that the vocabulary does not hold, or null: they are left out
     * @param prefix of every character but a word's first
     * @param suffix of a word's last character
     * @param fuseUnknown makes one token of neighbouring unknown characters
     * @param byteFallback makes tokens of the bytes of unknown characters
     * @param ignoreMerges takes a word as it is if the vocabulary holds it
     */
    record BpeOptions(
            @Nullable String unknownToken,
            String prefix,
            String suffix,
            boolean fuseUnknown,
            boolean byteFallback,
            boolean ignoreMerges) {}

    BpeModel(Vocabulary vocabulary, MergeTable merges, BpeOptions options) {
        this.vocabulary = vocabulary;
        this.merges = merges;
        this.options = options;
        String unknown = options.unknownToken();
        unknownId = unknown == null ? Vocabulary.NO_ID : vocabulary.find(unknown);
        byteTokens = options.byteFallback() ? new ByteTokens(vocabulary) : null;
    }

    @Override
    public Vocabulary vocabulary() {
        return vocabulary;
    }

    @Override
    public void tokenize(String word, IntList ids) {
        if (options.ignoreMerges()) {
            int whole = vocabulary.find(word);
            if (whole != Vocabulary.NO_ID) {
                ids.add(whole);
                return;
            }
        }
        new MergedWord(characters(word), merges).appendTo(ids);
    }

    /** The ids of single characters. An unknown one comes after the bytes of those that follow it: so has it the library. */
    private IntList characters(String word) {
        IntList ids = new IntList();
        TokenBytes buffer = new TokenBytes();
        int unknown = Vocabulary.NO_ID;
        for (int at = 0; at < word.length(); ) {
            int codePoint = word.codePointAt(at);
            int next = at + Character.charCount(codePoint);
            spell(buffer, codePoint, at == 0, next == word.length());
            int id = vocabulary.find(buffer.array(), 0, buffer.length());
            if (id != Vocabulary.NO_ID) {
                if (unknown != Vocabulary.NO_ID) {
                    ids.add(unknown);
                    unknown = Vocabulary.NO_ID;
                }
                ids.add(id);
            } else if (byteTokens != null && byteTokens.holdAll(buffer.array(), 0, buffer.length())) {
                for (int index = 0; index < buffer.length(); index++) {
                    ids.add(byteTokens.id(buffer.array()[index]));
                }
            } else if (options.unknownToken() != null) {
                if (unknown != Vocabulary.NO_ID && !options.fuseUnknown()) {
                    ids.add(unknown);
                }
                unknown = TokenModel.known(unknownId);
            }
            at = next;
        }
        if (unknown != Vocabulary.NO_ID) {
            ids.add(unknown);
        }
        return ids;
    }

    private void spell(TokenBytes buffer, int codePoint, boolean first, boolean last) {
        buffer.clear();
        if (!first) {
            buffer.append(options.prefix());
        }
        buffer.append(codePoint);
        if (last) {
            buffer.append(options.suffix());
        }
    }
}
