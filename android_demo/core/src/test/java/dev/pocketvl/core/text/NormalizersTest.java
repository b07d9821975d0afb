package dev.pocketvl.core.text;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.text.Normalizer.Normalized;
import dev.pocketvl.core.text.TokenizerSettings.Canonicalize;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.text.Normalizer.Form;
import java.util.Arrays;
import java.util.Base64;
import org.junit.jupiter.api.Test;

/** Rewriting texts. */
class NormalizersTest {
    private static String apply(Normalizer normalizer, String text) {
        return normalizer.normalize(new Normalized(text, true)).text();
    }

    @Test
    void canonicalTextsAreThoseOfPython() {
        Canonicalize[] all = Canonicalize.values();
        assertEquals("the cats box", Canonicalization.apply("  The\u3000CAT's\n\tBox. ", Arrays.asList(all)));
        assertEquals(
                "\u03b1\u03c2 \u03b1\u03c3\u03b1 \u03c3 i\u0307",
                Canonicalization.apply("\u0391\u03a3 \u0391\u03a3\u0391 \u03a3 \u0130", Arrays.asList(Canonicalize.LOWER)));
        assertEquals("a b", Canonicalization.apply("\u001ca\u001f b\u0085", Arrays.asList(Canonicalize.COLLAPSE_SPACES)));
    }

    @Test
    void lowerCaseLooksAtSingleCodePoints() {
        Normalizer lower = CharacterNormalizers.lowercase();
        assertEquals("\u03b1\u03c3 i\u0307 \u00df \u1c8a", apply(lower, "\u0391\u03a3 \u0130 \u1e9e \u1c89"));
        assertEquals("\ud801\udc28", apply(lower, "\ud801\udc00"));
    }

    @Test
    void normalFormsKnowNothingOfLaterVersions() {
        assertEquals("\u00e9", apply(new NormalForm(Form.NFC), "e\u0301"));
        assertEquals("fi\u0323\u0301", apply(new NormalForm(Form.NFKD), "\ufb01\u0301\u0323"));
        assertEquals("a\u0898\u0301", apply(new NormalForm(Form.NFD), "a\u0898\u0301")); // a mark since Unicode 14
        assertEquals("\u32ff", apply(new NormalForm(Form.NFKC), "\u32ff")); // since 12.1
    }

    @Test
    void bertCleansSpacesStripsAndLowers() {
        Normalizer bert = new BertNormalizer(true, true, true, true);
        assertEquals("e   \u732b  x y", apply(bert, "\u00c9\t\u0000 \u732b\u200b X\u00a0Y\ufffd"));
        assertEquals("\u00c9", apply(new BertNormalizer(true, true, false, false), "\u00c9"));
    }

    @Test
    void stripsAndReplacementsTellWhetherTheStartIsLeft() {
        Normalizer strip = CharacterNormalizers.strip(true, true);
        assertEquals("a b", apply(strip, "\u3000a b\n"));
        assertEquals("", apply(strip, " \n"));
        assertFalse(strip.normalize(new Normalized(" a", true)).atStart());
        assertTrue(strip.normalize(new Normalized("a ", true)).atStart());
        Normalizer spaces = new ReplaceNormalizer(SpanFinder.pattern("\\s+"), " ");
        assertEquals(" a b", apply(spaces, "\n a\t b"));
        assertFalse(spaces.normalize(new Normalized("\n a", true)).atStart());
        assertTrue(spaces.normalize(new Normalized("\na", true)).atStart());
        assertEquals("xx", apply(CharacterNormalizers.prepend("x"), "x"));
        assertEquals("", apply(CharacterNormalizers.prepend("x"), ""));
    }

    @Test
    void nmtMakesInvisibleCharactersSpaces() {
        assertEquals("a b  c", apply(CharacterNormalizers.nmt(), "a\u200bb\t\n\u0001c"));
    }

    @Test
    void graphemeClustersAreThoseOfUnicode17() {
        assertEquals("a\u0301|\r\n|\u1112\u1161\u11ab|x", clusters("a\u0301\r\n\u1112\u1161\u11abx"));
        String family = "\ud83d\udc68\u200d\ud83d\udc69";
        assertEquals(family + "|\ud83c\udde9\ud83c\uddea|\ud83c\uddeb", clusters(family + "\ud83c\udde9\ud83c\uddea\ud83c\uddeb"));
        assertEquals("\u0915\u094d\u0937|\u0915\u200d|\u0937", clusters("\u0915\u094d\u0937\u0915\u200d\u0937"));
        assertEquals("a|\u200b|\u0301", clusters("a\u200b\u0301"));
    }

    private static String clusters(String text) {
        StringBuilder out = new StringBuilder();
        for (int start = 0; start < text.length(); ) {
            int end = GraphemeClusters.end(text, start);
            out.append(start == 0 ? "" : "|").append(text, start, end);
            start = end;
        }
        return out.toString();
    }

    @Test
    void shortClustersAreReplacedByWhatStandsForTheirBeginning() {
        Normalizer table = new PrecompiledNormalizer(table("bc"));
        assertEquals("bcxbc", apply(table, "axa"));
        assertEquals("bc", apply(table, "a\u0301")); // the mark is lost, as in the library
        assertEquals("bc\u0301\u0301\u0301", apply(table, "a\u0301\u0301\u0301")); // seven bytes are too long
    }

    @Test
    void aDamagedTableIsRefused() {
        for (String table : new String[] {"", "?", "AAAA", "AAAAAA==", "/////wAAAAA="}) {
            assertThrows(BundleException.class, () -> new PrecompiledNormalizer(table));
        }
    }

    /** A table that replaces the letter a: units 0 (root), 1 ^ 'a' (a, with a value), and that value. */
    private static String table(String content) {
        int[] units = new int[256];
        units[0] = 1 << 10; // children of the root at 1 ^ label
        int node = 1 ^ 'a';
        units[node] = 'a' | 1 << 8 | (node ^ 200) << 10; // its value at 200
        units[200] = 1 << 31;
        byte[] text = (content + "\0").getBytes(StandardCharsets.UTF_8);
        ByteBuffer buffer = ByteBuffer.allocate(4 + 4 * units.length + text.length).order(ByteOrder.LITTLE_ENDIAN);
        buffer.putInt(4 * units.length);
        for (int unit : units) {
            buffer.putInt(unit);
        }
        buffer.put(text);
        return Base64.getEncoder().encodeToString(buffer.array());
    }
}
