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
    public int find(String token) {
        return vocabulary.find(token);
    }

    @Override
    public int size() {
        return vocabulary.size();
    }

    @Override
    public void tokenize(String word, IntList ids) {
        int id = vocabulary.find(word);
        ids.add(id == Vocabulary.NO_ID ? TokenModel.known(unknownId) : id);
    }
}
