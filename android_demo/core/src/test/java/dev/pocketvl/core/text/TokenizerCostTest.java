package dev.pocketvl.core.text;

import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTimeout;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.pocketvl.core.errors.InputException;
import java.time.Duration;
import org.junit.jupiter.api.Test;

/** Long texts take time in proportion, and hostile files do not fill the memory. */
class TokenizerCostTest {
    private static final Duration MOST = Duration.ofSeconds(60); // well under a second when idle; a quadratic way would take minutes

    @Test
    void aWordOfAHundredThousandLettersIsMergedInTime() {
        String merges = "[\"a\",\"a\"],[\"aa\",\"aa\"],[\"b\",\"a\"],[\"a\",\"b\"]";
        String model =
                "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"aa\":2,\"aaaa\":3,\"ba\":4,\"ab\":5},\"merges\":["
                        + merges + "]}";
        Tokenizer tokenizer = Documents.open("{\"model\":" + model + "}", 8);
        assertTimeout(MOST, () -> tokenizer.encode("a".repeat(100_000)));
        assertTimeout(MOST, () -> tokenizer.encode("aab".repeat(50_000)));
    }

    @Test
    void aLongWordIsCutByUnigramInTime() {
        String model = "{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"?\",0],[\"a\",-2],[\"aa\",-3],[\"aaaaaaaa\",-5]]}";
        Tokenizer tokenizer = Documents.open("{\"model\":" + model + "}", 8);
        assertTimeout(MOST, () -> tokenizer.encode("a".repeat(200_000)));
        assertTimeout(MOST, () -> tokenizer.encode("x".repeat(200_000)));
    }

    @Test
    void runsOfSpacesAreSplitInTime() {
        String split = "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true}";
        Tokenizer tokenizer = Documents.open(Documents.words("\"pre_tokenizer\":" + split), 8);
        assertTimeout(MOST, () -> tokenizer.encode(" ".repeat(200_000) + "a"));
        assertTimeout(MOST, () -> tokenizer.encode("a ".repeat(100_000)));
    }

    @Test
    void anEndlessPatternIsGivenUp() {
        String split =
                "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(?:a+b?)+c\"},\"behavior\":\"Isolated\",\"invert\":false}";
        Tokenizer tokenizer = Documents.open(Documents.words("\"pre_tokenizer\":" + split), 8);
        InputException error =
                assertTimeout(
                        MOST,
                        () -> assertThrows(InputException.class, () -> tokenizer.encode("a".repeat(5_000))));
        assertTrue(error.getMessage().contains("takes too long"), error.getMessage());
    }

    @Test
    void aTextThatGrowsWithoutBoundsIsRefused() {
        String grow = "{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"" + "a".repeat(100) + "\"}";
        String all = "{\"type\":\"Sequence\",\"normalizers\":[" + grow + "," + grow + "," + grow + "," + grow + "]}";
        Tokenizer tokenizer = Documents.open(Documents.words("\"normalizer\":" + all), 8);
        InputException error = assertThrows(InputException.class, () -> tokenizer.encode("aaa"));
        assertTrue(error.getMessage().contains("becomes longer"), error.getMessage());
    }

    @Test
    void aTextBeyondTheLimitIsRefused() {
        Tokenizer tokenizer = Documents.open(Documents.words(""), 8);
        InputException error =
                assertThrows(InputException.class, () -> tokenizer.encode("a".repeat(Tokenizer.MOST_CHARS + 1)));
        assertTrue(error.getMessage().contains("at most 250000"), error.getMessage());
    }
}
