package dev.pocketvl.core.text;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.function.IntPredicate;

/** The pre-tokenizers, from the parameters that files give them. */
final class PreTokenizers {
    private static final String BYTE_LEVEL_PATTERN =
            "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

    private static final CodePointSet NUMERIC = CodePointSet.unpack(UnicodeData.NUMERIC);
    private static final CodePointSet PUNCTUATION = CodePointSet.unpack(UnicodeData.PUNCTUATION);

    private PreTokenizers() {}

    /** When a metaspace is put before a piece that has none. */
    enum Prepend {
        ALWAYS,
        FIRST,
        NEVER
    }

    static PreTokenizer sequence(List<PreTokenizer> parts) {
        return piece -> {
            List<Piece> pieces = Collections.singletonList(piece);
            for (PreTokenizer part : parts) {
                List<Piece> next = new ArrayList<>();
                for (Piece each : pieces) {
                    next.addAll(part.split(each));
                }
                pieces = next;
            }
            return pieces;
        };
    }

    static PreTokenizer finder(SpanFinder finder, SplitBehavior behavior, boolean inverted) {
        return piece -> {
            Spans spans = finder.find(piece.text());
            return behavior.split(piece, inverted ? spans.inverted() : spans);
        };
    }

    private static PreTokenizer each(IntPredicate set, SplitBehavior behavior) {
        return finder(SpanFinder.eachOf(set), behavior, false);
    }

    static PreTokenizer whitespaceSplit() {
        return each(CharacterSets.WHITE_SPACE::contains, SplitBehavior.REMOVED);
    }

    static PreTokenizer punctuation(SplitBehavior behavior) {
        return each(PUNCTUATION::contains, behavior);
    }

    static PreTokenizer digits(boolean individual) {
        return each(NUMERIC::contains, individual ? SplitBehavior.ISOLATED : SplitBehavior.CONTIGUOUS);
    }

    static PreTokenizer bert() {
        List<PreTokenizer> parts = new ArrayList<>();
        parts.add(whitespaceSplit());
        parts.add(punctuation(SplitBehavior.ISOLATED));
        return sequence(parts);
    }

    /** Runs of word characters, and runs of what is neither these nor white space. */
    static PreTokenizer whitespace() {
        return piece -> {
            List<Piece> pieces = new ArrayList<>();
            String text = piece.text();
            int start = 0;
            int kind = 0;
            for (int at = 0; at < text.length(); ) {
                int codePoint = text.codePointAt(at);
                int next = CharacterSets.WORD.contains(codePoint)
                        ? 1
                        : CharacterSets.WHITE_SPACE.contains(codePoint) ? 0 : 2;
                if (next != kind) {
                    piece.addPart(start, kind == 0 ? start : at, pieces);
                    start = at;
                    kind = next;
                }
                at += Character.charCount(codePoint);
            }
            piece.addPart(start, kind == 0 ? start : text.length(), pieces);
            return pieces;
        };
    }

    static PreTokenizer byteLevel(boolean addPrefixSpace, boolean usePattern) {
        PreTokenizer words =
                usePattern
                        ? finder(SpanFinder.pattern(BYTE_LEVEL_PATTERN), SplitBehavior.ISOLATED, false)
                        : Collections::singletonList;
        return piece -> {
            boolean bare = addPrefixSpace && !piece.text().startsWith(" ");
            Piece whole = bare ? Piece.of(" " + piece.text(), piece.atStart()) : piece;
            List<Piece> pieces = new ArrayList<>();
            for (Piece word : words.split(whole)) {
                pieces.add(Piece.of(ByteLevel.letters(word.text()), word.atStart()));
            }
            return pieces;
        };
    }

    static PreTokenizer metaspace(String replacement, Prepend prepend, boolean split) {
        SpanFinder finder = SpanFinder.literal(replacement);
        return piece -> {
            String text = piece.text().replace(" ", replacement);
            boolean wanted = prepend == Prepend.ALWAYS || prepend == Prepend.FIRST && piece.atStart();
            if (wanted && !text.startsWith(replacement)) {
                text = replacement + text;
            }
            Piece whole = Piece.of(text, piece.atStart());
            return split
                    ? SplitBehavior.MERGED_WITH_NEXT.split(whole, finder.find(text))
                    : Collections.singletonList(whole);
        };
    }
}
