package dev.pocketvl.core.text;

import java.util.function.IntPredicate;

/** Finds all matches of something in a text that is not empty. */
interface SpanFinder {
    /** The whole text as spans. */
    Spans find(String text);

    /** Finds each code point of a set by itself. */
    static SpanFinder eachOf(IntPredicate set) {
        return text -> {
            Spans spans = new Spans();
            for (int at = 0; at < text.length(); ) {
                int codePoint = text.codePointAt(at);
                int end = at + Character.charCount(codePoint);
                if (set.test(codePoint)) {
                    spans.addMatch(at, end);
                }
                at = end;
            }
            spans.fillTo(text.length());
            return spans;
        };
    }

    /** Finds a string; an empty one is found between any two code points. */
    static SpanFinder literal(String wanted) {
        if (wanted.isEmpty()) {
            return pattern("");
        }
        return text -> {
            Spans spans = new Spans();
            for (int at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length())) {
                spans.addMatch(at, at + wanted.length());
            }
            spans.fillTo(text.length());
            return spans;
        };
    }

    /** Finds a regular expression. */
    static SpanFinder pattern(String pattern) {
        PatternCompiler.Instruction[] program = PatternCompiler.compile(PatternParser.parse(pattern));
        return text -> findAll(program, text);
    }

    private static Spans findAll(PatternCompiler.Instruction[] program, String text) {
        PatternMatcher matcher = new PatternMatcher(program, text);
        Spans spans = new Spans();
        int lastEnd = -1;
        for (int at = 0; at <= text.length(); ) {
            int end = matcher.match(at);
            if (end > at || end == at && at != lastEnd) {
                spans.addMatch(at, end);
                lastEnd = end;
            }
            if (end > at) {
                at = end;
            } else {
                at += at < text.length() ? Character.charCount(text.codePointAt(at)) : 1;
            }
        }
        spans.fillTo(text.length());
        return spans;
    }
}
