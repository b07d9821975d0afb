package dev.pocketvl.core.text;

import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.text.PatternNode.Greed;
import dev.pocketvl.core.text.PatternNode.Place;
import java.util.ArrayList;
import java.util.List;
import java.util.function.IntPredicate;
import org.jspecify.annotations.Nullable;

/** Turns a parsed regular expression into instructions for {@link PatternMatcher}. */
final class PatternCompiler {
    private static final int MOST_INSTRUCTIONS = 50_000;

    private final List<Instruction> program = new ArrayList<>();

    private PatternCompiler() {}

    /** What an instruction does. */
    enum Code {
        /** Takes a code point of {@code set}. */
        TAKE,
        /** Takes {@code x} to {@code y} code points of {@code set}. */
        TAKE_MANY,
        /** Goes on at {@code x}, and at {@code y} should that fail. */
        FORK,
        /** Goes on at {@code x}. */
        JUMP,
        /** Runs what follows up to {@link #ACCEPT} by itself, then goes on at {@code x} behind what it took. */
        ATOMIC,
        /** The same, without moving; where {@code negative}, if it fails. */
        LOOK_AHEAD,
        /** Looks at the code point before. */
        LOOK_BEHIND,
        /** Checks a {@code place}. */
        CHECK,
        /** A match, of the whole or of a part that is run by itself. */
        ACCEPT
    }

    /** One instruction; which fields count depends on the code. */
    static final class Instruction {
        final Code code;
        final @Nullable IntPredicate set;
        final Greed greed;
        final boolean negative;
        final @Nullable Place place;
        int x;
        int y;

        private Instruction(
                Code code, @Nullable IntPredicate set, Greed greed, boolean negative, @Nullable Place place) {
            this.code = code;
            this.set = set;
            this.greed = greed;
            this.negative = negative;
            this.place = place;
        }
    }

    /** Compiles a whole expression. */
    static Instruction[] compile(PatternNode node) {
        PatternCompiler compiler = new PatternCompiler();
        compiler.emit(node);
        compiler.add(Code.ACCEPT);
        return compiler.program.toArray(new Instruction[0]);
    }

    private void emit(PatternNode node) {
        if (node instanceof PatternNode.One) {
            add(Code.TAKE, ((PatternNode.One) node).set(), Greed.GREEDY, false, null);
        } else if (node instanceof PatternNode.Chain) {
            for (PatternNode part : ((PatternNode.Chain) node).parts()) {
                emit(part);
            }
        } else if (node instanceof PatternNode.Choice) {
            emitChoice(((PatternNode.Choice) node).options());
        } else if (node instanceof PatternNode.Repeat) {
            emitRepeat((PatternNode.Repeat) node);
        } else if (node instanceof PatternNode.Atomic) {
            emitApart(Code.ATOMIC, ((PatternNode.Atomic) node).part(), false);
        } else if (node instanceof PatternNode.LookAhead) {
            PatternNode.LookAhead look = (PatternNode.LookAhead) node;
            emitApart(Code.LOOK_AHEAD, look.part(), look.negative());
        } else if (node instanceof PatternNode.LookBehind) {
            PatternNode.LookBehind look = (PatternNode.LookBehind) node;
            add(Code.LOOK_BEHIND, look.set(), Greed.GREEDY, look.negative(), null);
        } else {
            add(Code.CHECK, null, Greed.GREEDY, false, ((PatternNode.At) node).place());
        }
    }

    private void emitChoice(List<PatternNode> options) {
        List<Instruction> exits = new ArrayList<>();
        for (int index = 0; index < options.size(); index++) {
            boolean last = index == options.size() - 1;
            Instruction fork = last ? null : add(Code.FORK);
            if (fork != null) {
                fork.x = program.size();
            }
            emit(options.get(index));
            if (fork != null) {
                exits.add(add(Code.JUMP));
                fork.y = program.size();
            }
        }
        for (Instruction exit : exits) {
            exit.x = program.size();
        }
    }

    private void emitRepeat(PatternNode.Repeat repeat) {
        IntPredicate set = PatternNode.single(repeat.part());
        if (set != null) {
            Instruction many = add(Code.TAKE_MANY, set, repeat.greed(), false, null);
            many.x = repeat.fewest();
            many.y = repeat.most();
        } else if (repeat.greed() == Greed.POSSESSIVE) {
            PatternNode greedy =
                    new PatternNode.Repeat(repeat.part(), repeat.fewest(), repeat.most(), Greed.GREEDY);
            emitApart(Code.ATOMIC, greedy, false);
        } else {
            emitLoop(repeat);
        }
    }

    private void emitLoop(PatternNode.Repeat repeat) {
        boolean lazy = repeat.greed() == Greed.LAZY;
        for (int count = 0; count < repeat.fewest(); count++) {
            emit(repeat.part());
        }
        List<Instruction> exits = new ArrayList<>();
        boolean endless = repeat.most() == Integer.MAX_VALUE;
        int options = endless ? 1 : repeat.most() - repeat.fewest();
        for (int count = 0; count < options; count++) {
            int start = program.size();
            Instruction fork = add(Code.FORK);
            exits.add(fork);
            emit(repeat.part());
            if (endless) {
                add(Code.JUMP).x = start;
            }
            int body = start + 1;
            fork.x = lazy ? -1 : body;
            fork.y = lazy ? body : -1;
        }
        for (Instruction fork : exits) {
            fork.x = fork.x < 0 ? program.size() : fork.x;
            fork.y = fork.y < 0 ? program.size() : fork.y;
        }
    }

    private void emitApart(Code code, PatternNode part, boolean negative) {
        Instruction apart = add(code, null, Greed.GREEDY, negative, null);
        emit(part);
        add(Code.ACCEPT);
        apart.x = program.size();
    }

    private Instruction add(Code code) {
        return add(code, null, Greed.GREEDY, false, null);
    }

    private Instruction add(
            Code code, @Nullable IntPredicate set, Greed greed, boolean negative, @Nullable Place place) {
        if (program.size() >= MOST_INSTRUCTIONS) {
            throw new BundleException("a regular expression repeats too much");
        }
        Instruction instruction = new Instruction(code, set, greed, negative, place);
        program.add(instruction);
        return instruction;
    }
}
