package dev.pocketvl.core.text;

import dev.pocketvl.core.errors.BundleException;

/** Turns words into ids. */
interface TokenModel {
    /**
     * Appends the ids of a word.
     *
     * @throws BundleException it needs the token for what is unknown, and the file names none that it holds
     */
    void tokenize(String word, IntList ids);

    /** The model's tokens. */
    Vocabulary vocabulary();

    /** The id of a token, or {@link Vocabulary#NO_ID}. */
    default int find(String token) {
        return vocabulary().find(token);
    }

    /** How many entries the vocabulary has. */
    default int size() {
        return vocabulary().size();
    }

    /** The id of a token that stands for what is unknown. */
    static int known(int id) {
        if (id == Vocabulary.NO_ID) {
            throw new BundleException(
                    "the tokenizer cannot read this text: its vocabulary holds no token for what is unknown");
        }
        return id;
    }
}
