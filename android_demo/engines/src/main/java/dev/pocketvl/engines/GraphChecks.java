package dev.pocketvl.engines;

import dev.pocketvl.core.engine.Engine;
import dev.pocketvl.core.engine.EngineOptions;
import dev.pocketvl.core.engine.EngineVersion;
import dev.pocketvl.core.engine.GraphSpec;
import dev.pocketvl.core.engine.Tensor;
import dev.pocketvl.core.engine.TensorSpec;
import dev.pocketvl.core.errors.EngineException;
import dev.pocketvl.core.errors.Quoted;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/** What every engine holds a graph and its inputs against. */
public final class GraphChecks {
    private static final int MOST_THREADS = 256;
    private static final int MOST_QUOTED = 300;

    private GraphChecks() {}

    /**
     * Before a graph is given to an engine.
     *
     * @param leastForPrecision the first release of the engine that is right at the graph's precision, or null: any
     * @throws EngineException no such number of threads, a file that is not direct memory, or too old an engine
     */
    public static void checkOpening(
            Engine engine,
            GraphSpec spec,
            ByteBuffer content,
            EngineOptions options,
            @Nullable String leastForPrecision) {
        if (options.threads() < 1 || options.threads() > MOST_THREADS) {
            throw new EngineException("threads must be 1 to " + MOST_THREADS + ", not " + options.threads());
        }
        if (!content.isDirect()) {
            throw new EngineException(spec.graphId() + ": its file lies in the Java heap, where an engine would copy it; "
                    + "memory-map it or use a direct buffer");
        }
        for (String least : new String[] {spec.minEngine(), leastForPrecision}) {
            if (least != null && !EngineVersion.isAtLeast(engine.release(), least)) {
                throw new EngineException(spec.graphId() + " needs " + engine.name() + " " + least + " or newer to be right in "
                        + spec.precision() + ", and this is " + engine.release() + "; use another variant");
            }
        }
    }

    /**
     * Holds a loaded graph's inputs, or its outputs, against the manifest's.
     *
     * @param found what the graph takes or gives, by name
     * @param wanted what the manifest says of that
     * @throws EngineException one is missing, one too many, or of another dtype or shape
     */
    public static void checkTensors(String graphId, Map<String, Found> found, List<TensorSpec> wanted) {
        Map<String, TensorSpec> missing = new LinkedHashMap<>();
        wanted.forEach(spec -> missing.put(spec.name(), spec));
        for (Map.Entry<String, Found> each : found.entrySet()) {
            TensorSpec spec = missing.remove(each.getKey());
            Found tensor = each.getValue();
            if (spec == null || !tensor.is(spec)) {
                String said = spec == null ? "no such tensor" : spec.dtype().label() + " " + spec.shape();
                throw new EngineException(graphId + ": its tensor " + Quoted.quoted(each.getKey()) + " is " + tensor.dtype()
                        + " " + Arrays.toString(tensor.shape()) + ", but the manifest says " + said
                        + "; export the bundle again");
            }
        }
        if (!missing.isEmpty()) {
            throw new EngineException(graphId + ": it has no " + String.join(", ", new TreeSet<>(missing.keySet()))
                    + ", which the manifest names; export the bundle again");
        }
    }

    /**
     * Holds inputs against the graph's.
     *
     * @throws EngineException they differ in name, dtype, shape or size, or lie in the Java heap
     */
    public static void checkFeed(GraphSpec spec, Map<String, Tensor> inputs) {
        TreeSet<String> wanted = new TreeSet<>();
        spec.inputs().forEach(input -> wanted.add(input.name()));
        if (!wanted.equals(inputs.keySet())) {
            throw new EngineException(
                    spec.graphId() + " takes " + wanted + ", not " + new TreeSet<>(inputs.keySet()));
        }
        for (TensorSpec input : spec.inputs()) {
            Tensor given = inputs.get(input.name());
            String where = spec.graphId() + ": " + input.name();
            if (!new Found(given.dtype().label(), given.shape()).is(input)) {
                throw new EngineException(where + " is " + given.dtype().label() + " " + Arrays.toString(given.shape())
                        + ", and " + input.dtype().label() + " " + input.shape() + " is wanted");
            }
            ByteBuffer data = given.data();
            if (!data.isDirect() || data.remaining() != byteCount(input)) {
                throw new EngineException(where + " has " + data.remaining() + " bytes"
                        + (data.isDirect() ? "" : " in the Java heap") + ", and a direct buffer of " + byteCount(input)
                        + " is wanted");
            }
        }
    }

    /**
     * The size of a tensor in bytes.
     *
     * @throws EngineException a size is not known, or together they are more than one buffer holds
     */
    public static int byteCount(TensorSpec spec) {
        double bytes = spec.dtype().bytes();
        boolean known = true;
        for (int size : spec.shape()) {
            known &= size >= 0;
            bytes *= size;
        }
        if (!known || bytes > Integer.MAX_VALUE) {
            throw new EngineException(spec.name() + " of shape " + spec.shape()
                    + " cannot be one tensor in memory; export the bundle again");
        }
        return (int) bytes;
    }

    /** What an engine threw, as ours: what failed, and one line of what it said. */
    public static EngineException failure(String what, Throwable error) {
        return new EngineException(what + " (" + firstLine(error) + ")", error);
    }

    /** What an engine said, in a line of at most 300 characters; its error's type where it says nothing. */
    static String firstLine(Throwable error) {
        String message = error.getMessage();
        String line = message == null ? "" : message.trim().split("\\R", 2)[0].trim();
        if (line.isEmpty()) {
            line = error.getClass().getSimpleName();
        }
        return line.length() <= MOST_QUOTED ? line : line.substring(0, MOST_QUOTED - 3) + "...";
    }

    /**
     * A tensor as an engine tells it.
     *
     * @param dtype numpy's name where manifests know the type, else the engine's
     * @param shape sizes; -1 where one is not fixed
     */
    public record Found(String dtype, int[] shape) {
        boolean is(TensorSpec spec) {
            return spec.dtype().label().equals(dtype)
                    && spec.shape().equals(Arrays.stream(shape).boxed().collect(Collectors.toList()));
        }
    }
}
