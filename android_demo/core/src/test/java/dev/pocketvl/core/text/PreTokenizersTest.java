package dev.pocketvl.core.text;

import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.pocketvl.core.text.PreTokenizers.Prepend;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Splitting into words. */
class PreTokenizersTest {
    @ParameterizedTest
    @CsvSource({
        "REMOVED, the|final|countdown",
        "ISOLATED, the|-|final|-|-|countdown",
        "MERGED_WITH_PREVIOUS, the-|final-|-|countdown",
        "MERGED_WITH_NEXT, the|-final|-|-countdown",
        "CONTIGUOUS, the|-|final|--|countdown"
    })
    void matchesAreTreatedAsTheBehaviourSays(SplitBehavior behavior, String wanted) {
        PreTokenizer split = PreTokenizers.finder(SpanFinder.literal("-"), behavior, false);
        assertEquals(wanted, Documents.pieces(split, "the-final--countdown"));
    }

    @Test
    void anInvertedSplitKeepsTheMatches() {
        PreTokenizer split = PreTokenizers.finder(SpanFinder.pattern("[a-z]+"), SplitBehavior.REMOVED, true);
        assertEquals("ab|c", Documents.pieces(split, "1ab2c3"));
    }

    @Test
    void byteLevelSplitsAsGpt2AndWritesBytesAsLetters() {
        PreTokenizer split = PreTokenizers.byteLevel(true, true);
        assertEquals("\u0120it|'s|\u0120\u0120|\u0120caf\u00c3\u00a9|!", Documents.pieces(split, "it's   caf\u00e9!"));
        assertEquals("a\u0120b\u010a", Documents.pieces(PreTokenizers.byteLevel(false, false), "a b\n"));
    }

    @Test
    void whiteSpaceMarksAndDigitsAreToldApart() {
        assertEquals("don|'|t|_x|..", Documents.pieces(PreTokenizers.whitespace(), " don't _x .. "));
        assertEquals("don't|\u732b", Documents.pieces(PreTokenizers.whitespaceSplit(), "don't\u3000\u732b "));
        assertEquals("don|'|t|\u3002|$|a", Documents.pieces(PreTokenizers.bert(), "don't\u3002 $a"));
        assertEquals("a|12\u0663\u00bd|b", Documents.pieces(PreTokenizers.digits(false), "a12\u0663\u00bdb"));
        assertEquals("a|1|2|b", Documents.pieces(PreTokenizers.digits(true), "a12b"));
    }

    @Test
    void metaspacesStandBeforeWords() {
        PreTokenizer always = PreTokenizers.metaspace("_", Prepend.ALWAYS, true);
        assertEquals("_a|_|_b", Documents.pieces(always, "a  b"));
        assertEquals("_a", Documents.pieces(always, " a"));
        PreTokenizer first = PreTokenizers.metaspace("_", Prepend.FIRST, false);
        assertEquals("_a_b", Documents.pieces(first, "a b"));
        assertEquals("a", first.split(Piece.of("a", false)).get(0).text());
        assertEquals("a|_b", Documents.pieces(PreTokenizers.metaspace("_", Prepend.NEVER, true), "a b"));
    }
}
