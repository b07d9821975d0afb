package dev.pocketvl.core.text;

import dev.pocketvl.core.errors.InputException;
import dev.pocketvl.core.text.PatternCompiler.Instruction;
import dev.pocketvl.core.text.PatternNode.Greed;
import dev.pocketvl.core.text.PatternNode.Place;
import java.util.Arrays;
import java.util.function.IntPredicate;
import org.jspecify.annotations.Nullable;

/** Runs a regular expression on one text, by backtracking. */
final class PatternMatcher {
    private static final int FAILED = -1;
    private static final long MOST_STEPS = 50_000_000;

    private final Instruction[] program;
    private final String text;
    private long steps;

    /** Where to go on after a failure: instruction, index, and up to where the index may go back (or -1). */
    private int[] pending = new int[96];

    private int top;

    PatternMatcher(Instruction[] program, String text) {
        this.program = program;
        this.text = text;
    }

    /**
     * The end of the match that starts at an index, or -1.
     *
     * @throws InputException it takes too long
     */
    int match(int start) {
        return run(0, start);
    }

    private int run(int first, int start) {
        int floor = top;
        int at = start;
        int next = first;
        while (true) {
            if (++steps > MOST_STEPS) {
                throw new InputException("the text takes too long to split into words; shorten it");
            }
            Instruction instruction = program[next];
            switch (instruction.code) {
                case ACCEPT:
                    top = floor;
                    return at;
                case TAKE:
                    at = take(instruction.set, at);
                    next++;
                    break;
                case TAKE_MANY:
                    at = takeMany(instruction, next, at);
                    next++;
                    break;
                case FORK:
                    push(instruction.y, at, FAILED);
                    next = instruction.x;
                    break;
                case JUMP:
                    next = instruction.x;
                    break;
                case ATOMIC:
                    at = run(next + 1, at);
                    next = instruction.x;
                    break;
                case LOOK_AHEAD:
                    at = (run(next + 1, at) == FAILED) == instruction.negative ? at : FAILED;
                    next = instruction.x;
                    break;
                case LOOK_BEHIND:
                    at = behind(instruction.set, at) != instruction.negative ? at : FAILED;
                    next++;
                    break;
                default:
                    at = isAt(instruction.place, at) ? at : FAILED;
                    next++;
                    break;
            }
            if (at == FAILED) {
                if (top == floor) {
                    return FAILED;
                }
                next = pending[top - 3];
                at = goBack();
            }
        }
    }

    /** Takes the last pending way: its index, after which one is left that goes back (or on) one more. */
    private int goBack() {
        top -= 3;
        int next = pending[top];
        int at = pending[top + 1];
        int limit = pending[top + 2];
        if (limit == FAILED) {
            return at;
        }
        Instruction lazy = program[next - 1];
        if (lazy.code == PatternCompiler.Code.TAKE_MANY && lazy.greed == Greed.LAZY) {
            int more = take(lazy.set, at); // limit: how many more it may take
            if (more != FAILED && limit > 1) {
                push(next, more, limit - 1);
            }
            return more;
        }
        int back = at - Character.charCount(text.codePointBefore(at));
        if (back > limit) {
            push(next, back, limit);
        }
        return back;
    }

    private int takeMany(Instruction many, int index, int start) {
        int at = start;
        for (int count = 0; count < many.x; count++) {
            at = take(many.set, at);
            if (at == FAILED) {
                return FAILED;
            }
        }
        int fewest = at;
        int left = many.y == Integer.MAX_VALUE ? Integer.MAX_VALUE : many.y - many.x;
        if (many.greed == Greed.LAZY) {
            if (left > 0) {
                push(index + 1, at, left);
            }
            return at;
        }
        for (int count = 0; count < left; count++) {
            int more = take(many.set, at);
            if (more == FAILED) {
                break;
            }
            at = more;
        }
        steps += at - fewest;
        if (many.greed == Greed.GREEDY && at > fewest) {
            push(index + 1, at, fewest);
        }
        return at;
    }

    private int take(@Nullable IntPredicate set, int at) {
        if (at >= text.length() || set == null) {
            return FAILED;
        }
        int codePoint = text.codePointAt(at);
        return set.test(codePoint) ? at + Character.charCount(codePoint) : FAILED;
    }

    private boolean behind(@Nullable IntPredicate set, int at) {
        return set != null && at > 0 && set.test(text.codePointBefore(at));
    }

    private boolean isAt(@Nullable Place place, int at) {
        int length = text.length();
        if (place == null) {
            return false;
        }
        switch (place) {
            case TEXT_START:
                return at == 0;
            case TEXT_END:
                return at == length;
            case LAST_LINE_END:
                return at == length || at == length - 1 && text.charAt(at) == '\n';
            case LINE_START:
                return at == 0 || at < length && text.charAt(at - 1) == '\n';
            case LINE_END:
                return at == length || text.charAt(at) == '\n';
            default:
                boolean before = at > 0 && PatternClasses.word().contains(text.codePointBefore(at));
                boolean after = at < length && PatternClasses.word().contains(text.codePointAt(at));
                return (before != after) == (place == Place.WORD_EDGE);
        }
    }

    private void push(int next, int at, int limit) {
        if (top == pending.length) {
            pending = Arrays.copyOf(pending, 2 * top);
        }
        pending[top] = next;
        pending[top + 1] = at;
        pending[top + 2] = limit;
        top += 3;
    }
}
