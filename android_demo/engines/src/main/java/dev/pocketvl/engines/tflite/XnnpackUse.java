package dev.pocketvl.engines.tflite;

import dev.pocketvl.core.engine.EngineOptions.Delegate;
import dev.pocketvl.core.engine.GraphSpec;
import dev.pocketvl.core.engine.Placement;
import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.List;
import org.tensorflow.lite.Interpreter;

/**
 * Whether XNNPACK took a graph. TFLite does not tell: where the delegate is not found, refuses the graph or fails, plain kernels
 * answer without a word, about ten times as slowly. What tells is the number of steps that the interpreter goes through: as many as
 * the file has operations where no delegate took any, fewer where one did.
 */
final class XnnpackUse {
    /** Whose x86 kernels with AVX-512 read 64 bytes at once from places that its allocator aligns to 32. */
    private static final String CRASHING = "TFLite 2.16.1";

    private XnnpackUse() {}

    /** Where a graph is computed, from what was asked for and what happened. */
    static Placement placement(Interpreter interpreter, int operators, Delegate asked, boolean xnnpack) {
        List<String> notes = new ArrayList<>();
        if (asked == Delegate.GPU || asked == Delegate.NNAPI) {
            notes.add(asked + " is not used: it computes in 16 bits, where large token ids cannot be told apart; the CPU takes "
                    + "the graph");
        }
        if (asked == Delegate.NONE) {
            return new Placement(Delegate.NONE, List.copyOf(notes));
        }
        if (!xnnpack) {
            notes.add("XNNPACK is off: " + CRASHING + " crashes with it on x86 processors with AVX-512 in integer graphs; plain "
                    + "kernels take several times as long");
            return new Placement(Delegate.NONE, List.copyOf(notes));
        }
        int steps = steps(interpreter);
        if (steps < 0) {
            notes.add("this version of TFLite does not show whether XNNPACK took the graph; compare its latency with that of "
                    + "delegate NONE");
        } else if (steps >= operators) {
            notes.add("XNNPACK was asked for and took none of the " + operators + " operations; plain kernels take several times "
                    + "as long");
            return new Placement(Delegate.NONE, List.copyOf(notes));
        } else if (steps > 1) {
            notes.add("XNNPACK took part of the graph: of " + operators + " operations " + steps
                    + " steps are left, and the rest is in some of these");
        }
        return new Placement(Delegate.CPU, List.copyOf(notes));
    }

    /** Whether XNNPACK would crash here; a crash takes the app with it. */
    static boolean crashes(GraphSpec spec, String engine) {
        boolean android = String.valueOf(System.getProperty("java.vendor")).contains("Android");
        boolean x86 = String.valueOf(System.getProperty("os.arch")).contains("86");
        boolean floats = spec.precision().startsWith("fp");
        return android && x86 && !floats && engine.equals(CRASHING) && hasAvx512();
    }

    private static boolean hasAvx512() {
        try {
            String text = new String(Files.readAllBytes(Paths.get("/proc/cpuinfo")), StandardCharsets.US_ASCII);
            return text.contains("avx512f");
        } catch (IOException | RuntimeException untold) {
            return true;
        }
    }

    /** The steps that an interpreter goes through, after delegates took theirs; -1 where it does not tell. */
    static int steps(Interpreter interpreter) {
        try {
            Class<?> implementation = Class.forName("org.tensorflow.lite.InterpreterImpl");
            // It is not public; TFLite's own tests of delegates count with it.
            Method length = implementation.getDeclaredMethod("getExecutionPlanLength");
            length.setAccessible(true);
            return length.invoke(interpreter) instanceof Integer steps ? steps : -1;
        } catch (ClassNotFoundException
                | NoSuchMethodException
                | IllegalAccessException
                | InvocationTargetException
                | RuntimeException changed) {
            return -1;
        }
    }
}
