package dev.pocketvl.core.text;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import dev.pocketvl.core.errors.BundleException;
import java.util.Random;
import org.junit.jupiter.api.Test;

/** Turning words into ids. */
class ModelsTest {
    private static final String BYTES = "\"<0xC3>\":20,\"<0xA9>\":21";

    private static String ids(String model, String text) {
        return Documents.ids(Documents.open("{\"model\":" + model + "}", 64), text);
    }

    private static String bpe(String options) {
        return "{\"type\":\"BPE\"," + options + "\"vocab\":{\"?\":0,\"a\":1,\"b\":2,\"c\":3,\"ab\":4,\"bc\":5,\"abc\":6,\"c</w>\":7,"
                + BYTES + "},\"merges\":[[\"b\",\"c\"],[\"a\",\"b\"],[\"a\",\"bc\"]]}";
    }

    @Test
    void thePairOfTheLowestRankIsMergedFirst() {
        assertEquals("6", ids(bpe(""), "abc"));
        assertEquals("4 6", ids(bpe(""), "ababc"));
        assertEquals("4 1", ids(bpe(""), "aba"));
    }

    @Test
    void aSuffixEndsTheWord() {
        assertEquals("4 7", ids(bpe("\"end_of_word_suffix\":\"</w>\","), "abc"));
    }

    @Test
    void unknownCharactersAreLeftOutOrNamedOrFused() {
        assertEquals("4", ids(bpe(""), "axyb"));
        assertEquals("1 0 0 2", ids(bpe("\"unk_token\":\"?\","), "axyb"));
        assertEquals("1 0 2", ids(bpe("\"unk_token\":\"?\",\"fuse_unk\":true,"), "axyb"));
        assertThrows(BundleException.class, () -> ids(bpe("\"unk_token\":\"!\","), "x"));
    }

    @Test
    void bytesStandForUnknownCharactersWhereAllAreThere() {
        String options = "\"unk_token\":\"?\",\"byte_fallback\":true,";
        assertEquals("1 20 21 2", ids(bpe(options), "a\u00e9b"));
        assertEquals("1 0 2", ids(bpe(options), "a\u00e8b"));
        assertEquals("20 21 0 2", ids(bpe(options), "x\u00e9b")); // the library's order
    }

    @Test
    void aWordOfTheVocabularyNeedsNoMerges() {
        String model = "{\"type\":\"BPE\",\"ignore_merges\":true,\"vocab\":{\"a\":1,\"b\":2,\"ab\":3},\"merges\":[]}";
        assertEquals("3", ids(model, "ab"));
        assertEquals("1 2", ids(model.replace("true", "false"), "ab"));
    }

    @Test
    void wordPieceTakesTheLongestBeginning() {
        String model =
                "{\"type\":\"WordPiece\",\"unk_token\":\"?\",\"continuing_subword_prefix\":\"##\","
                        + "\"max_input_chars_per_word\":6,\"vocab\":{\"?\":0,\"a\":1,\"ab\":2,\"##b\":3,\"##bc\":4,\"##\u00e9\":5}}";
        assertEquals("2 4", ids(model, "abbc"));
        assertEquals("1 5", ids(model, "a\u00e9"));
        assertEquals("0", ids(model, "abx"));
        assertEquals("2 3 3 3 3", ids(model, "abbbbb"));
        assertEquals("0", ids(model, "abbbbbb"));
    }

    @Test
    void unigramTakesTheBestSum() {
        String model =
                "{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"?\",0],[\"a\",0],[\"b\",0],[\"c\",0],[\"d\",0],[\"cd\",1],"
                        + "[\"ab\",2],[\"abc\",5],[\"abcd\",10]]}";
        assertEquals("8 1 5 0", ids(model, "abcdacdxx"));
        assertEquals("6 6 2 0 1", ids(model, "ababb\u732bxa"));
        assertThrows(BundleException.class, () -> ids(model.replace("\"unk_id\":0,", ""), "x"));
    }

    @Test
    void unigramFallsBackToBytes() {
        String model =
                "{\"type\":\"Unigram\",\"unk_id\":0,\"byte_fallback\":true,"
                        + "\"vocab\":[[\"?\",0],[\"a\",0],[\"<0xC3>\",0],[\"<0xA9>\",0]]}";
        assertEquals("1 2 3 1 0", ids(model, "a\u00e9ax"));
    }

    @Test
    void addedTokensAreTakenOutFirst() {
        String tokens =
                added("aa", 9, false, false, false, false) + "," + added("<x>", 9, false, true, true, false) + ","
                        + added("b", 9, true, false, false, false) + "," + added("Q", 9, false, false, false, true);
        String document =
                Documents.words("\"added_tokens\":[" + tokens + "],\"normalizer\":{\"type\":\"Lowercase\"}");
        Tokenizer tokenizer = Documents.open(document, 64);
        assertEquals("5 1", Documents.ids(tokenizer, "aaa")); // aa is the model's 5
        assertEquals("1 6 3", Documents.ids(tokenizer, "a <x>\u3000c"));
        assertEquals("2 0 2", Documents.ids(tokenizer, "b b"));
        assertEquals("0", Documents.ids(tokenizer, "bbb"));
        assertEquals("1 7 1", Documents.ids(tokenizer, "aqa"));
        assertEquals("1 7 1", Documents.ids(tokenizer, "aQA"));
    }

    @Test
    void twoAddedTokensThatBecomeEqualAreRefused() {
        String tokens = added("Q", 9, false, false, false, true) + "," + added("q", 9, false, false, false, true);
        String document =
                Documents.words("\"added_tokens\":[" + tokens + "],\"normalizer\":{\"type\":\"Lowercase\"}");
        assertThrows(BundleException.class, () -> Documents.open(document, 64));
    }

    private static String added(
            String content, int id, boolean single, boolean left, boolean right, boolean normalized) {
        return String.format(
                "{\"id\":%d,\"content\":\"%s\",\"single_word\":%b,\"lstrip\":%b,\"rstrip\":%b,\"normalized\":%b,\"special\":false}",
                id, content, single, left, right, normalized);
    }

    @Test
    void theVocabularyFindsWhatWasPut() {
        Vocabulary vocabulary = new Vocabulary();
        Random random = new Random(7);
        String[] tokens = new String[20_000];
        for (int id = 0; id < tokens.length; id++) {
            tokens[id] = Integer.toString(id, 36) + (char) (0x80 + random.nextInt(0x5000));
            assertEquals(Vocabulary.NO_ID, vocabulary.put(tokens[id], id));
        }
        vocabulary.trim();
        for (int id = 0; id < tokens.length; id++) {
            assertEquals(id, vocabulary.find(tokens[id]));
            assertEquals(Vocabulary.NO_ID, vocabulary.find(tokens[id] + "\u00e9"));
        }
    }

    @Test
    void theMergeTableFindsWhatWasAddedLast() {
        MergeTable merges = new MergeTable();
        for (int left = 0; left < 3_000; left++) {
            merges.add(left, left * 7 % 1_000, left + 5);
        }
        merges.add(1, 7, 99);
        merges.trim();
        assertEquals(MergeTable.NO_RANK, merges.rank(1, 8));
        assertEquals(3_000, merges.rank(1, 7));
        assertEquals(99, merges.merged(merges.rank(1, 7)));
        assertEquals(2_005, merges.merged(merges.rank(2_000, 0)));
    }
}
