package dev.pocketvl.core.text;

/** Whole words. */
final class WordLevelModel implements TokenModel {
    private final Vocabulary vocabulary;
    private final int unknownId;

    WordLevelModel(Vocabulary vocabulary, String unknownToken) {
        this.vocabulary = vocabulary;
        unknownId = vocabulary.find(unknownToken);
    }

    @Override
    public Vocabulary vocabulary() {
        return vocabulary;
    }

    @Override
    public void tokenize(String word, IntList ids) {
        int id = vocabulary.find(word);
        ids.add(id == Vocabulary.NO_ID ? TokenModel.known(unknownId) : id);
    }
}
