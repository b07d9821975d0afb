package dev.pocketvl.core.text;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.errors.InputException;
import dev.pocketvl.core.text.TokenizerSettings.Side;
import java.io.StringReader;
import java.util.Collections;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Reading files, padding, truncation and refusals. */
class TokenizerTest {
    private static final String SPLIT = "\"pre_tokenizer\":{\"type\":\"WhitespaceSplit\"}";
    private static final String BERT =
            "\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"[\",7],\"sep\":[\"]\",8]}";

    private static Tokenizer open(Side pad, Side cut) {
        TokenizerSettings settings = new TokenizerSettings(5, 9, pad, cut, Collections.emptyList());
        return Tokenizer.open(settings, new StringReader(Documents.words(SPLIT + "," + BERT)));
    }

    @Test
    void shortTextsArePaddedAtTheSideThatIsAskedFor() {
        TokenIds right = open(Side.RIGHT, Side.RIGHT).encode("a b");
        assertArrayEquals(new int[] {7, 1, 2, 8, 9}, right.ids());
        assertArrayEquals(new int[] {1, 1, 1, 1, 0}, right.mask());
        assertFalse(right.truncated());
        TokenIds left = open(Side.LEFT, Side.RIGHT).encode("a b");
        assertArrayEquals(new int[] {9, 7, 1, 2, 8}, left.ids());
        assertArrayEquals(new int[] {0, 1, 1, 1, 1}, left.mask());
    }

    @Test
    void longTextsAreCutAtTheSideThatIsAskedForAndSpecialsAreKept() {
        TokenIds right = open(Side.RIGHT, Side.RIGHT).encode("a b c a b");
        assertArrayEquals(new int[] {7, 1, 2, 3, 8}, right.ids());
        assertTrue(right.truncated());
        TokenIds left = open(Side.RIGHT, Side.LEFT).encode("a b c a b");
        assertArrayEquals(new int[] {7, 3, 1, 2, 8}, left.ids());
        assertFalse(open(Side.RIGHT, Side.LEFT).encode("a b c").truncated());
    }

    @ParameterizedTest
    @ValueSource(strings = {"", " ", "\n\t", "\u3000", "\u001c"})
    void aBlankTextIsRefused(String text) {
        Tokenizer tokenizer = Documents.open(Documents.words(""), 4);
        assertTrue(
                assertThrows(InputException.class, () -> tokenizer.encode(text)).getMessage().contains("empty"));
    }

    @ParameterizedTest
    @ValueSource(strings = {"a\ud800", "\udc00\ud800", "\udfff"})
    void halfASurrogatePairIsRefused(String text) {
        Tokenizer tokenizer = Documents.open(Documents.words(""), 4);
        InputException error = assertThrows(InputException.class, () -> tokenizer.encode(text));
        assertTrue(error.getMessage().contains("not valid Unicode"), error.getMessage());
    }

    @Test
    void aTextOfWhichNothingIsLeftIsRefused() {
        String remove = "{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"[^a-z]\"},\"content\":\"\"}";
        Tokenizer tokenizer = Documents.open(Documents.words("\"normalizer\":" + remove), 4);
        InputException error = assertThrows(InputException.class, () -> tokenizer.encode("\u732b"));
        assertTrue(error.getMessage().contains("nothing that the model can read"), error.getMessage());
    }

    @Test
    void aLengthWithoutRoomForTextIsRefused() {
        BundleException error =
                assertThrows(BundleException.class, () -> Documents.open(Documents.words(BERT), 2));
        assertTrue(error.getMessage().contains("leave no room beside 2 specials"), error.getMessage());
    }

    @Test
    void anUnknownWordWithoutATokenForItIsTheBundlesFault() {
        String model = "{\"type\":\"WordLevel\",\"unk_token\":\"?\",\"vocab\":{\"a\":1}}";
        Tokenizer tokenizer = Documents.open("{\"model\":" + model + "}", 4);
        assertEquals("1", Documents.ids(tokenizer, "a"));
        assertThrows(BundleException.class, () -> tokenizer.encode("b"));
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "",
                "{}",
                "[1]",
                "null",
                "{\"model\":",
                "{\"model\":{\"type\":\"BPE\"}}",
                "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}",
                "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}",
                "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}",
                "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}",
                "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":2147483648},\"merges\":[]}}",
                "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}",
                "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"\\ud800\":0},\"merges\":[]}}",
                "{\"model\":{\"type\":\"BPE\",\"dropout\":0.1,\"vocab\":{\"a\":0},\"merges\":[]}}",
                "{\"model\":{\"type\":\"Unigram\",\"vocab\":{\"a\":0}}}",
                "{\"model\":{\"type\":\"Unigram\",\"unk_id\":1,\"vocab\":[[\"a\",0]]}}",
                "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}",
                "{\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"a\",\"vocab\":{\"a\":0}}}"
            })
    void aDamagedFileIsRefused(String document) {
        String message =
                assertThrows(BundleException.class, () -> Documents.open(document, 4)).getMessage();
        assertFalse(message.isEmpty() || message.contains("\n"), message);
    }

    @Test
    void aFileThatGoesOnIsRefused() {
        assertThrows(BundleException.class, () -> Documents.open(Documents.words("") + "{}", 4));
        assertThrows(BundleException.class, () -> Documents.open(Documents.words("\"model\":null"), 4));
        assertThrows(BundleException.class, () -> Documents.open(Documents.words("\"version\":\"2.0\""), 4));
    }

    @ParameterizedTest
    @CsvSource({"normalizer", "pre_tokenizer", "post_processor"})
    void aPartOfUnknownTypeIsRefusedByItsName(String part) {
        String document = Documents.words("\"" + part + "\":{\"type\":\"Invented\"}");
        String message = assertThrows(BundleException.class, () -> Documents.open(document, 4)).getMessage();
        assertTrue(message.contains(part) && message.contains("Invented"), message);
    }

    @Test
    void aModelOfUnknownTypeIsRefusedByItsName() {
        String document = "{\"model\":{\"type\":\"Invented\",\"vocab\":{}}}";
        String message = assertThrows(BundleException.class, () -> Documents.open(document, 4)).getMessage();
        assertTrue(message.contains("Invented"), message);
    }

    @Test
    void partsAreReadInAnyOrder() {
        String model = "{\"merges\":[\"a a\"],\"vocab\":{\"a\":1,\"aa\":2},\"type\":\"BPE\"}";
        Tokenizer tokenizer = Documents.open("{\"model\":" + model + "," + BERT + "," + SPLIT + "}", 8);
        assertEquals("7 2 1 2 8", Documents.ids(tokenizer, "aaa aa"));
    }

    @Test
    void templatesPutSpecialsAroundTheText() {
        String template =
                "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}},"
                        + "{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"y\"}}],\"pair\":[],"
                        + "\"special_tokens\":{\"x\":{\"ids\":[5,6]},\"y\":{\"ids\":[7]}}}";
        assertEquals("5 6 1 7", Documents.ids(Documents.open(Documents.words(template), 8), "a"));
        String twice = template.replace("{\"SpecialToken\":{\"id\":\"y\"}}", "{\"Sequence\":{\"id\":\"A\"}}");
        assertThrows(BundleException.class, () -> Documents.open(Documents.words(twice), 8));
        String missing = template.replace("\"y\":{\"ids\"", "\"z\":{\"ids\"");
        assertThrows(BundleException.class, () -> Documents.open(Documents.words(missing), 8));
    }
}
