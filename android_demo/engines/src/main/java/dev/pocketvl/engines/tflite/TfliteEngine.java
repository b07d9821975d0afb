package dev.pocketvl.engines.tflite;

import dev.pocketvl.core.engine.Engine;
import dev.pocketvl.core.engine.EngineOptions;
import dev.pocketvl.core.engine.Graph;
import dev.pocketvl.core.engine.GraphSpec;
import dev.pocketvl.core.errors.EngineException;
import dev.pocketvl.engines.GraphChecks;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;
import org.tensorflow.lite.InterpreterApi.Options.TfLiteRuntime;
import org.tensorflow.lite.TensorFlowLite;

/** TensorFlow Lite on the CPU, or LiteRT, which has the same Java API and package names. */
public final class TfliteEngine implements Engine {
    /** Blocks of 4 bits are one tensor with one scale to earlier ones, which say nothing and answer anything. */
    private static final String LEAST_FOR_BLOCKS = "2.1";

    private static final Set<String> BLOCKS = Set.of("int4", "int2", "mixed");
    /** TensorFlow Lite 2.14 and 2.15 compute these precisions wrongly: cosine .145 to fp32. */
    private static final String LEAST_FOR_INT8 = "0.16";

    private static final Set<String> INT8 = Set.of("int8", "int8dyn");
    private static final Pattern TENSORFLOW = Pattern.compile("2\\.(\\d{2,})(.*)");
    private static final int FIRST_RIGHT_TENSORFLOW = 21;

    private final String version;

    /**
     * TFLite with the native library that the app brings.
     *
     * @throws EngineException it is not in the app, or not for this processor
     */
    public TfliteEngine() {
        this(null);
    }

    /**
     * TFLite with a native library that lies somewhere else: on a desktop, where {@code make android-tflite} puts it.
     *
     * @param library the path of what {@link System#load} is given, or null: what the app brings
     * @throws EngineException it cannot be loaded
     */
    public TfliteEngine(@Nullable Path library) {
        try {
            if (library != null) {
                System.load(library.toAbsolutePath().toString());
            }
            version = TensorFlowLite.runtimeVersion(TfLiteRuntime.FROM_APPLICATION_ONLY);
        } catch (RuntimeException | LinkageError error) {
            throw GraphChecks.failure(
                    "TFLite's native library cannot be loaded; add the AAR's for this processor to the app, or use an onnx variant",
                    error);
        }
    }

    @Override
    public String name() {
        return "tflite";
    }

    @Override
    public String version() {
        return version;
    }

    @Override
    public String release() {
        return release(version);
    }

    /**
     * A version as {@code min_engine} counts. TensorFlow Lite counted as TensorFlow does, from 2.10 on with two digits, which
     * LiteRT, begun anew with 1.0, has not reached: 2.16.1 is 0.16.1. TensorFlow 2.21 and newer ones compute as LiteRT 2.1 does.
     */
    static String release(String version) {
        Matcher found = TENSORFLOW.matcher(version);
        if (!found.matches()) {
            return version;
        }
        boolean newer = found.group(1).length() > 2 || Integer.parseInt(found.group(1)) >= FIRST_RIGHT_TENSORFLOW;
        return newer ? LEAST_FOR_BLOCKS : "0." + found.group(1) + found.group(2);
    }

    @Override
    public Graph open(GraphSpec spec, ByteBuffer content, EngineOptions options) {
        String precision = spec.precision();
        String least = BLOCKS.contains(precision) ? LEAST_FOR_BLOCKS : INT8.contains(precision) ? LEAST_FOR_INT8 : null;
        GraphChecks.checkOpening(this, spec, content, options, least);
        return TfliteGraph.open(spec, TfliteFile.read(spec, content), content, options, "TFLite " + version);
    }
}
