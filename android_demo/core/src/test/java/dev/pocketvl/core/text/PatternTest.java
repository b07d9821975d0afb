package dev.pocketvl.core.text;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.pocketvl.core.errors.BundleException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Regular expressions, as far as tokenizers use them. */
class PatternTest {
    private static String matches(String pattern, String text) {
        Spans spans = SpanFinder.pattern(pattern).find(text);
        StringBuilder out = new StringBuilder();
        for (int index = 0; index < spans.count(); index++) {
            if (spans.isMatch(index)) {
                out.append('<').append(text, spans.start(index), spans.end(index)).append('>');
            }
        }
        return out.toString();
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = ';',
            value = {
                "a|ab; abab; <a><a>",
                "ab|a; abaab; <ab><a><ab>",
                "a*?b; aab; <aab>",
                "a+?; aa; <a><a>",
                "a{2}; aaaaa; <aa><aa>",
                "a{1,2}; aaa; <aa><a>",
                "a{2,}; aaaaa; <aaaaa>",
                "a++a; aaa; ''",
                "(?>a+)a|a; aa; <a><a>",
                "(?:ab)+; ababx; <abab>",
                "(?:ab)+?; abab; <ab><ab>",
                "(?:ab?){2}; aab; <aab>",
                "x(?=y); xyxz; <x>",
                "x(?!y); xyxz; <x>",
                "(?<=a)b; abcb; <b>",
                "(?<!a)b; abcb; <b>",
                "(?<name>a)b; ab; <ab>",
                "[^a-c]+; abxyc; <xy>",
                "[]a]+; a]b; <a]>",
                "[a\\-c]+; a-cb; <a-c>",
                "[\\x61\\u0062\\x{63}]+; abcd; <abc>",
                "\\bab\\b; ab abab; <ab>",
                "^a; aa; <a>",
                "a$; aa; <a>",
                "\\d+; a12b; <12>",
                "\\p{Lu}\\p{^Lu}; aBcD; <Bc>",
                "\\P{L}+; ab12; <12>",
                "\\p{Letter}+; ab12; <ab>",
                "(?i)ab; aBAb; <aB><Ab>",
                "(?i:a)b; AbAB; <Ab>",
                "a.c; abca-c; <abc><a-c>"
            })
    void matchesAreThoseOfOniguruma(String pattern, String text, String wanted) {
        assertEquals(wanted, matches(pattern, text));
    }

    @Test
    void lettersAndSpacesAreUnicodes() {
        assertEquals("<\u732b\ud835\udcd7>", matches("\\p{L}+", "1\u732b\ud835\udcd71"));
        assertEquals("<\u3000\u0085\u00a0>", matches("\\s+", "a\u3000\u0085\u00a0\u200b"));
        assertEquals("<'\u017f>", matches("(?i:'s)", "'\u017f"));
        assertEquals("<\u212a>", matches("(?i:[a-z])", "\u212a"));
        assertEquals("<\ud83d\ude00>", matches(".", "\ud83d\ude00"));
    }

    @Test
    void anEmptyMatchStandsWhereNoMatchEnds() {
        assertEquals("<><a><>", matches("a*", "bab")); // before b, a, and behind the last b
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "(", ")", "[", "a**?+{", "*", "(?x)a", "\\1", "\\G", "\\p{Greek}", "\\p", "[[:alpha:]]", "[a&&b]", "(a*)*",
                "a{2,1}", "a{1,2000}", "(?<=ab)c", "\\x{110000}", "\\u12", "[b-a]", "(?i)\u00e9", "\\", "(?<a"
            })
    void whatIsNotSupportedIsRefused(String pattern) {
        String message = assertThrows(BundleException.class, () -> SpanFinder.pattern(pattern)).getMessage();
        assertTrue(message.startsWith("the regular expression"), message);
    }

    @Test
    void nestingAndRepetitionAreBounded() {
        assertThrows(BundleException.class, () -> SpanFinder.pattern("(".repeat(500) + ")".repeat(500)));
        assertThrows(BundleException.class, () -> SpanFinder.pattern("(?:(?:(?:ab){100}){100}){100}"));
        assertThrows(BundleException.class, () -> SpanFinder.pattern("a".repeat(10_001)));
    }
}
