package dev.pocketvl.core.text;

/** Extended grapheme clusters, as of Unicode 17 (UAX #29). */
final class GraphemeClusters {
    private static final CodePointClasses CLASSES = CodePointClasses.unpack(UnicodeData.GRAPHEME);
    private static final CodePointSet LINKER = CodePointSet.unpack(UnicodeData.CONJUNCT_LINKER);
    private static final CodePointSet CONJUNCT_EXTEND = CodePointSet.unpack(UnicodeData.CONJUNCT_EXTEND);

    private static final int OTHER = 0;
    private static final int CR = 1;
    private static final int LF = 2;
    private static final int CONTROL = 3;
    private static final int EXTEND = 4;
    private static final int ZWJ = 5;
    private static final int REGIONAL = 6;
    private static final int PREPEND = 7;
    private static final int SPACING_MARK = 8;
    private static final int L = 9;
    private static final int V = 10;
    private static final int T = 11;
    private static final int LV = 12;
    private static final int LVT = 13;
    private static final int PICTOGRAPHIC = 14;
    private static final int CONSONANT = 15;

    /** The class of the last code point taken, and what of the cluster before it still matters. */
    private int before;

    private int regionals;
    private boolean pictograph;
    private boolean conjunct;
    private boolean linked;

    private GraphemeClusters(int codePoint) {
        take(codePoint, classOf(codePoint));
    }

    /** The end of the cluster that starts at an index of a text. */
    static int end(String text, int start) {
        int codePoint = text.codePointAt(start);
        int at = start + Character.charCount(codePoint);
        if (at == text.length() || codePoint < 0x7F && codePoint != '\r' && text.charAt(at) < 0x7F) {
            return at;
        }
        GraphemeClusters cluster = new GraphemeClusters(codePoint);
        while (at < text.length()) {
            int next = text.codePointAt(at);
            int nextClass = classOf(next);
            if (cluster.endsBefore(nextClass)) {
                break;
            }
            cluster.take(next, nextClass);
            at += Character.charCount(next);
        }
        return at;
    }

    private static int classOf(int codePoint) {
        if (codePoint >= 0x20 && codePoint < 0x7F) {
            return OTHER;
        }
        return CLASSES.of(codePoint);
    }

    private boolean endsBefore(int next) {
        if (before == CR && next == LF) {
            return false; // GB3
        }
        if (isControl(before) || isControl(next)) {
            return true; // GB4, GB5
        }
        switch (next) {
            case EXTEND:
            case ZWJ:
            case SPACING_MARK:
                return false; // GB9, GB9a
            case L:
                return before != L && before != PREPEND;
            case LV:
            case LVT:
                return before != L && before != PREPEND; // GB6
            case V:
                return before != L && before != LV && before != V && before != PREPEND; // GB7
            case T:
                return before != LV && before != V && before != LVT && before != T && before != PREPEND; // GB8
            case CONSONANT:
                return !(conjunct && linked) && before != PREPEND; // GB9c
            case PICTOGRAPHIC:
                return !(before == ZWJ && pictograph) && before != PREPEND; // GB11
            case REGIONAL:
                return !(before == REGIONAL && regionals % 2 == 1) && before != PREPEND; // GB12
            default:
                return before != PREPEND; // GB9b
        }
    }

    private static boolean isControl(int each) {
        return each == CR || each == LF || each == CONTROL;
    }

    private void take(int codePoint, int next) {
        regionals = next == REGIONAL ? regionals + 1 : 0;
        if (next == PICTOGRAPHIC) {
            pictograph = true;
        } else if (next != ZWJ && next != EXTEND || before == ZWJ) {
            pictograph = false;
        }
        if (next == CONSONANT) {
            conjunct = true;
            linked = false;
        } else if (conjunct && LINKER.contains(codePoint)) {
            linked = true;
        } else if (!CONJUNCT_EXTEND.contains(codePoint)) {
            conjunct = false;
        }
        before = next;
    }
}
