package dev.pocketvl.core.text;

import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.text.PatternNode.Greed;
import dev.pocketvl.core.text.PatternNode.Place;
import java.util.ArrayList;
import java.util.List;
import java.util.function.IntPredicate;

/**
 * Parses regular expressions of tokenizer files: those of Oniguruma's that tokenizers use.
 *
 * <p>Neither the JVM's nor Android's own expressions serve: they differ from Oniguruma in what is a letter or a space,
 * and from each other.
 */
final class PatternParser {
    private static final int MOST_CHARS = 10_000;
    private static final int DEEPEST = 100;
    private static final int MOST_REPEATS = 1_000;

    private final String pattern;
    private int at;
    private int depth;
    private boolean ignoreCase;

    private PatternParser(String pattern) {
        this.pattern = pattern;
    }

    /**
     * Parses an expression.
     *
     * @throws BundleException it is damaged, or uses what is not supported here; the message says what
     */
    static PatternNode parse(String pattern) {
        if (pattern.length() > MOST_CHARS) {
            throw new BundleException("a regular expression has more than " + MOST_CHARS + " characters");
        }
        PatternParser parser = new PatternParser(pattern);
        PatternNode node = parser.choice();
        if (parser.at < pattern.length()) {
            throw parser.refusal("an unopened )");
        }
        return node;
    }

    private PatternNode choice() {
        if (++depth > DEEPEST) {
            throw refusal("groups nested too deeply");
        }
        boolean outside = ignoreCase;
        List<PatternNode> options = new ArrayList<>();
        options.add(chain());
        while (take('|')) {
            options.add(chain());
        }
        ignoreCase = outside;
        depth--;
        return options.size() == 1 ? options.get(0) : new PatternNode.Choice(options);
    }

    private PatternNode chain() {
        List<PatternNode> parts = new ArrayList<>();
        while (at < pattern.length() && pattern.charAt(at) != '|' && pattern.charAt(at) != ')') {
            parts.add(repeated(atom()));
        }
        return new PatternNode.Chain(parts);
    }

    private PatternNode repeated(PatternNode part) {
        PatternNode node = part;
        while (at < pattern.length()) {
            int[] counts = quantifier();
            if (counts.length == 0) {
                return node;
            }
            Greed greed = Greed.GREEDY;
            boolean braces = pattern.charAt(at - 1) == '}';
            if (take('?')) {
                greed = Greed.LAZY;
            } else if (!braces && take('+')) { // after braces it is one more quantifier
                greed = Greed.POSSESSIVE;
            }
            if (node.least() == 0 && counts[1] > 1 || node instanceof PatternNode.At) {
                throw refusal("a repetition of what may be empty");
            }
            node = new PatternNode.Repeat(node, counts[0], counts[1], greed);
        }
        return node;
    }

    /** The fewest and the most times, or nothing where no quantifier stands. */
    private int[] quantifier() {
        if (take('*')) {
            return new int[] {0, Integer.MAX_VALUE};
        }
        if (take('+')) {
            return new int[] {1, Integer.MAX_VALUE};
        }
        if (take('?')) {
            return new int[] {0, 1};
        }
        int end = pattern.charAt(at) == '{' ? pattern.indexOf('}', at) : -1;
        if (end < 0) {
            return new int[0];
        }
        String inside = pattern.substring(at + 1, end);
        int comma = inside.indexOf(',');
        if (!inside.matches("[0-9]{1,4}(,[0-9]{0,4})?")) {
            throw refusal("a brace that is no quantifier");
        }
        at = end + 1;
        int fewest = Integer.parseInt(comma < 0 ? inside : inside.substring(0, comma));
        String rest = inside.substring(comma + 1);
        int most = rest.isEmpty() ? Integer.MAX_VALUE : Integer.parseInt(rest);
        if (most < fewest || fewest > MOST_REPEATS || most != Integer.MAX_VALUE && most > MOST_REPEATS) {
            throw refusal("the quantifier {" + inside + "}");
        }
        return new int[] {fewest, most};
    }

    private PatternNode atom() {
        int codePoint = next();
        switch (codePoint) {
            case '(':
                return group();
            case '[':
                return new PatternNode.One(new PatternSetParser(this).parse());
            case '.':
                return new PatternNode.One(each -> each != '\n');
            case '^':
                return new PatternNode.At(Place.LINE_START);
            case '$':
                return new PatternNode.At(Place.LINE_END);
            case '\\':
                return escape();
            case '*':
            case '+':
            case '?':
                throw refusal("a quantifier of nothing");
            default:
                return new PatternNode.One(literal(codePoint));
        }
    }

    private PatternNode group() {
        if (!take('?')) {
            return closed(choice());
        }
        int kind = next();
        switch (kind) {
            case ':':
                return closed(choice());
            case '>':
                return new PatternNode.Atomic(closed(choice()));
            case '=':
            case '!':
                return new PatternNode.LookAhead(closed(choice()), kind == '!');
            case '<':
                return afterAngle();
            case 'i':
                return ignoringCase();
            default:
                throw refusal("a group (?" + new String(Character.toChars(kind)));
        }
    }

    private PatternNode afterAngle() {
        if (!take('=') && !take('!')) {
            int end = pattern.indexOf('>', at);
            if (end < 0) {
                throw refusal("a name without its end");
            }
            at = end + 1; // a named group; nothing refers to it
            return closed(choice());
        }
        boolean negative = pattern.charAt(at - 1) == '!';
        IntPredicate set = PatternNode.single(closed(choice()));
        if (set == null) {
            throw refusal("a look-behind of other than one character");
        }
        return new PatternNode.LookBehind(set, negative);
    }

    private PatternNode ignoringCase() {
        boolean outside = ignoreCase;
        ignoreCase = true;
        if (take(')')) {
            return new PatternNode.Chain(new ArrayList<>()); // until the end of the group around it
        }
        if (!take(':')) {
            throw refusal("a group with options other than i");
        }
        PatternNode node = closed(choice());
        ignoreCase = outside;
        return node;
    }

    private PatternNode closed(PatternNode node) {
        if (!take(')')) {
            throw refusal("an unclosed (");
        }
        return node;
    }

    private PatternNode escape() {
        int codePoint = next();
        switch (codePoint) {
            case 'A':
                return new PatternNode.At(Place.TEXT_START);
            case 'z':
                return new PatternNode.At(Place.TEXT_END);
            case 'Z':
                return new PatternNode.At(Place.LAST_LINE_END);
            case 'b':
                return new PatternNode.At(Place.WORD_EDGE);
            case 'B':
                return new PatternNode.At(Place.NO_WORD_EDGE);
            default:
                return new PatternNode.One(escapedSet(codePoint));
        }
    }

    /** The set of an escape whose letter was read. */
    IntPredicate escapedSet(int letter) {
        switch (letter) {
            case 's':
                return PatternClasses.space()::contains;
            case 'S':
                return not(PatternClasses.space()::contains);
            case 'w':
                return PatternClasses.word()::contains;
            case 'W':
                return not(PatternClasses.word()::contains);
            case 'd':
                return PatternClasses.digit()::contains;
            case 'D':
                return not(PatternClasses.digit()::contains);
            case 'p':
            case 'P':
                return property(letter == 'P');
            default:
                return literal(escapedCodePoint(letter));
        }
    }

    private IntPredicate property(boolean negative) {
        int end = pattern.indexOf('}', at);
        if (!take('{') || end < 0) {
            throw refusal("\\p without a name in braces");
        }
        boolean caret = take('^');
        IntPredicate set = PatternClasses.property(pattern.substring(at, end))::contains;
        at = end + 1;
        return negative != caret ? not(set) : set;
    }

    /** The code point of an escape whose letter was read. */
    int escapedCodePoint(int letter) {
        switch (letter) {
            case 't':
                return '\t';
            case 'n':
                return '\n';
            case 'r':
                return '\r';
            case 'f':
                return '\f';
            case 'v':
                return 0x0B;
            case 'a':
                return 0x07;
            case 'e':
                return 0x1B;
            case 'x':
                if (take('{')) {
                    int end = Math.max(at, pattern.indexOf('}', at));
                    int codePoint = hexadecimal(end - at);
                    at++;
                    return codePoint;
                }
                return hexadecimal(2);
            case 'u':
                return hexadecimal(4);
            default:
                if (letter >= 0x80 || Character.isLetterOrDigit(letter)) {
                    throw refusal("the escape \\" + new String(Character.toChars(letter)));
                }
                return letter;
        }
    }

    private int hexadecimal(int digits) {
        int end = at + digits;
        String text = digits > 0 && digits <= 8 && end <= pattern.length() ? pattern.substring(at, end) : "";
        if (!text.matches("[0-9A-Fa-f]+") || Long.parseLong(text, 16) > Character.MAX_CODE_POINT) {
            throw refusal("an escape without its hexadecimal digits");
        }
        at = end;
        return Integer.parseInt(text, 16);
    }

    /** The set of one code point, and of its other cases where case is ignored. */
    IntPredicate literal(int wanted) {
        if (!ignoreCase || !isCased(wanted)) {
            return codePoint -> codePoint == wanted;
        }
        int folded = folded(wanted);
        return codePoint -> folded(codePoint) == folded;
    }

    /** A set, and the other cases of ASCII's letters in it where case is ignored. */
    IntPredicate cased(IntPredicate set) {
        if (!ignoreCase) {
            return set;
        }
        return codePoint -> {
            int folded = folded(codePoint);
            boolean letter = folded >= 'a' && folded <= 'z';
            return set.test(codePoint) || letter && (set.test(folded) || set.test(folded - 32));
        };
    }

    private boolean isCased(int codePoint) {
        if (codePoint >= 0x80 && Character.isLetter(codePoint)) {
            throw refusal("a letter beyond ASCII where case is ignored");
        }
        return folded(codePoint) >= 'a' && folded(codePoint) <= 'z';
    }

    /** ASCII's lower case; the long s and the Kelvin sign are cases of s and k. */
    private static int folded(int codePoint) {
        if (codePoint >= 'A' && codePoint <= 'Z') {
            return codePoint + 32;
        }
        return codePoint == 0x17F ? 's' : codePoint == 0x212A ? 'k' : codePoint;
    }

    static IntPredicate not(IntPredicate set) {
        return set.negate();
    }

    boolean take(char wanted) {
        if (at < pattern.length() && pattern.charAt(at) == wanted) {
            at++;
            return true;
        }
        return false;
    }

    /** Whether these characters come next. */
    boolean sees(String text) {
        return pattern.startsWith(text, at);
    }

    int next() {
        if (at >= pattern.length()) {
            throw refusal("an end where something is missing");
        }
        int codePoint = pattern.codePointAt(at);
        at += Character.charCount(codePoint);
        return codePoint;
    }

    BundleException refusal(String what) {
        String shown = pattern.length() > 60 ? pattern.substring(0, 60) + "..." : pattern;
        return new BundleException(
                "the regular expression \"" + shown + "\" has " + what + " before character " + at
                        + ", which is not supported");
    }
}
