package dev.pocketvl.core.text;

import dev.pocketvl.core.errors.BundleException;
import java.util.ArrayList;
import java.util.List;

/** What becomes of the matches at which a text is split. */
enum SplitBehavior {
    REMOVED("Removed"),
    ISOLATED("Isolated"),
    MERGED_WITH_PREVIOUS("MergedWithPrevious"),
    MERGED_WITH_NEXT("MergedWithNext"),
    CONTIGUOUS("Contiguous");

    private final String label;

    SplitBehavior(String label) {
        this.label = label;
    }

    /** The behaviour of a name in a tokenizer file. */
    static SplitBehavior of(String label) {
        for (SplitBehavior behavior : values()) {
            if (behavior.label.equals(label)) {
                return behavior;
            }
        }
        throw new BundleException("the split behavior " + label + " is not known");
    }

    /** The pieces of a piece that was cut into spans. */
    List<Piece> split(Piece piece, Spans spans) {
        List<Piece> pieces = new ArrayList<>(spans.count());
        switch (this) {
            case REMOVED:
            case ISOLATED:
                for (int index = 0; index < spans.count(); index++) {
                    if (this == ISOLATED || !spans.isMatch(index)) {
                        piece.addPart(spans.start(index), spans.end(index), pieces);
                    }
                }
                break;
            case CONTIGUOUS:
                merge(piece, spans, pieces, (before, now) -> before == now);
                break;
            case MERGED_WITH_PREVIOUS:
                merge(piece, spans, pieces, (before, now) -> now && !before);
                break;
            default:
                mergeWithNext(piece, spans, pieces);
                break;
        }
        return pieces;
    }

    /** Whether a span joins the one before it. */
    private interface Joins {
        boolean test(boolean before, boolean now);
    }

    private static void merge(Piece piece, Spans spans, List<Piece> pieces, Joins joins) {
        int start = 0;
        boolean before = false;
        for (int index = 0; index < spans.count(); index++) {
            boolean now = spans.isMatch(index);
            if (index > 0 && !joins.test(before, now)) {
                piece.addPart(start, spans.start(index), pieces);
                start = spans.start(index);
            }
            before = now;
        }
        piece.addPart(start, piece.text().length(), pieces);
    }

    private static void mergeWithNext(Piece piece, Spans spans, List<Piece> pieces) {
        int start = 0;
        for (int index = 1; index < spans.count(); index++) {
            boolean joined = spans.isMatch(index - 1) && !spans.isMatch(index);
            if (!joined) {
                piece.addPart(start, spans.start(index), pieces);
                start = spans.start(index);
            }
        }
        piece.addPart(start, piece.text().length(), pieces);
    }
}
