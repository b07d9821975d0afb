package dev.pocketvl.core.text;

import java.util.function.IntPredicate;

/** Parses sets in brackets, like {@code [^\s\p{L}0-9]}. */
final class PatternSetParser {
    private final PatternParser source;
    private IntPredicate members = codePoint -> false;

    PatternSetParser(PatternParser source) {
        this.source = source;
    }

    /** Parses up to the closing bracket; the opening one was read. */
    IntPredicate parse() {
        boolean negative = source.take('^');
        boolean first = true;
        while (first || !source.take(']')) {
            if (source.sees("[") || source.sees("&&")) {
                throw source.refusal("a set within a set");
            }
            member();
            first = false;
        }
        IntPredicate set = source.cased(members);
        return negative ? PatternParser.not(set) : set;
    }

    private void member() {
        int start = source.next();
        if (start == '\\') {
            int letter = source.next();
            if ("sSwWdDpP".indexOf(letter) >= 0) {
                members = members.or(source.escapedSet(letter));
                return;
            }
            start = letter == 'b' ? 0x08 : source.escapedCodePoint(letter);
        }
        int from = start;
        if (!source.sees("-") || source.sees("-]")) {
            members = members.or(codePoint -> codePoint == from);
            return;
        }
        source.take('-');
        int end = source.next();
        if (end == '\\') {
            end = source.escapedCodePoint(source.next());
        }
        int to = end;
        if (to < from) {
            throw source.refusal("a range that ends before it starts");
        }
        members = members.or(codePoint -> from <= codePoint && codePoint <= to);
    }
}
