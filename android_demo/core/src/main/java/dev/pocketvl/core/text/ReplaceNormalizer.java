package dev.pocketvl.core.text;

/** Replaces what a finder finds. */
record ReplaceNormalizer(SpanFinder finder, String content) implements Normalizer {
    @Override
    public Normalized normalize(Normalized given) {
        String text = given.text();
        if (text.isEmpty()) {
            return given;
        }
        Spans spans = finder.find(text);
        StringBuilder out = new StringBuilder(text.length());
        for (int index = 0; index < spans.count(); index++) {
            if (spans.isMatch(index)) {
                out.append(content);
            } else {
                out.append(text, spans.start(index), spans.end(index));
            }
            Normalizer.checkLength(out.length());
        }
        return new Normalized(out.toString(), given.atStart() && startsAtFirst(text, spans));
    }

    /** What replaces a match stems from the match's last character. */
    private boolean startsAtFirst(String text, Spans spans) {
        if (spans.count() == 0 || !spans.isMatch(0)) {
            return true;
        }
        int one = Character.charCount(text.codePointAt(0));
        return content.isEmpty() ? spans.end(0) == 0 : spans.end(0) <= one;
    }
}
