package dev.pocketvl.engines.onnx;

import ai.onnxruntime.NodeInfo;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtLoggingLevel;
import ai.onnxruntime.OrtSession;
import ai.onnxruntime.TensorInfo;
import dev.pocketvl.core.engine.DType;
import dev.pocketvl.core.engine.Engine;
import dev.pocketvl.core.engine.EngineOptions;
import dev.pocketvl.core.engine.EngineOptions.Delegate;
import dev.pocketvl.core.engine.Graph;
import dev.pocketvl.core.engine.GraphSpec;
import dev.pocketvl.core.engine.Placement;
import dev.pocketvl.core.errors.EngineException;
import dev.pocketvl.engines.GraphChecks;
import dev.pocketvl.engines.GraphChecks.Found;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * ONNX Runtime, on the CPU. The classes are those of its desktop jar and of {@code onnxruntime-android}, which have the same
 * Java API.
 */
public final class OnnxEngine implements Engine {
    /** 2-bit weights: earlier ones refuse them in words of their own. */
    private static final String LEAST_FOR_INT2 = "1.24";

    private static final Set<String> INTEGER_PRODUCTS = Set.of("int8", "int8dyn", "int4", "int2", "mixed");

    private final OrtEnvironment environment;

    /**
     * Starts ONNX Runtime; telemetry is off.
     *
     * @throws EngineException its library is not in this app, or not for this processor
     */
    public OnnxEngine() {
        try {
            // An error is raised, and what it says is in our own line: nothing is to be logged.
            environment = OrtEnvironment.getEnvironment(OrtLoggingLevel.ORT_LOGGING_LEVEL_FATAL, "pocketvl");
            environment.setTelemetry(false);
        } catch (OrtException | RuntimeException | LinkageError error) {
            throw GraphChecks.failure(
                    "ONNX Runtime cannot be started; add onnxruntime-android to the app, or use a tflite variant", error);
        }
    }

    @Override
    public String name() {
        return "onnx";
    }

    @Override
    public String version() {
        return environment.getVersion();
    }

    @Override
    public Graph open(GraphSpec spec, ByteBuffer content, EngineOptions options) {
        GraphChecks.checkOpening(
                this, spec, content, options, "int2".equals(spec.precision()) ? LEAST_FOR_INT2 : null);
        if (ExternalData.isIn(content)) {
            throw new EngineException(spec.graphId() + ": some of its weights lie in another file, which no checksum covers; "
                    + "export the bundle again, with the weights inside the graph");
        }
        boolean exact = Int8Products.areExact();
        OrtSession session = null;
        try (OrtSession.SessionOptions settings = settings(options.threads(), exact)) {
            session = environment.createSession(content.slice().order(ByteOrder.nativeOrder()), settings);
            GraphChecks.checkTensors(spec.graphId(), found(session.getInputInfo()), spec.inputs());
            GraphChecks.checkTensors(spec.graphId(), found(session.getOutputInfo()), spec.outputs());
            return new OnnxGraph(environment, session, spec, placement(spec, options.delegate(), exact));
        } catch (OrtException | RuntimeException | LinkageError | OutOfMemoryError error) {
            close(session);
            throw error instanceof EngineException ours
                    ? ours
                    : GraphChecks.failure(spec.graphId() + ": ONNX Runtime " + version() + " cannot load it", error);
        }
    }

    private static OrtSession.SessionOptions settings(int threads, boolean exact) throws OrtException {
        OrtSession.SessionOptions settings = new OrtSession.SessionOptions();
        settings.setIntraOpNumThreads(threads);
        settings.setInterOpNumThreads(1);
        settings.setSessionLogLevel(OrtLoggingLevel.ORT_LOGGING_LEVEL_FATAL);
        // Between answers its threads would go on spinning, on a battery.
        settings.addConfigEntry("session.force_spinning_stop", "1");
        // Weights in other files are refused before; this is a second door.
        settings.addConfigEntry("session.model_external_initializers_file_folder_path", "/dev/null");
        if (!exact) {
            // Without VNNI its int8 kernels add pairs of products in 16 bits, which saturates: wrong answers.
            settings.addConfigEntry("session.x64quantprecision", "1");
        }
        return settings;
    }

    private static Placement placement(GraphSpec spec, Delegate asked, boolean exact) {
        List<String> notes = new ArrayList<>();
        if (asked == Delegate.GPU || asked == Delegate.NNAPI) {
            notes.add("ONNX Runtime is used on the CPU only here: its " + asked + " provider leaves layers to the CPU without "
                    + "saying which, and computes in 16 bits, where large token ids cannot be told apart");
        }
        if (!exact && INTEGER_PRODUCTS.contains(spec.precision())) {
            notes.add("ONNX Runtime's int8 kernels saturate on x86 without VNNI: its exact mode is on "
                    + "(session.x64quantprecision=1), which costs some speed");
        }
        return new Placement(asked == Delegate.NONE ? Delegate.NONE : Delegate.CPU, List.copyOf(notes));
    }

    private static Map<String, Found> found(Map<String, NodeInfo> nodes) {
        Map<String, Found> found = new LinkedHashMap<>();
        nodes.forEach((name, node) -> found.put(
                name,
                node.getInfo() instanceof TensorInfo tensor
                        ? new Found(
                                dtype(tensor),
                                Arrays.stream(tensor.getShape()).mapToInt(Math::toIntExact).toArray())
                        : new Found(node.getInfo().toString(), new int[0])));
        return found;
    }

    private static String dtype(TensorInfo tensor) {
        DType dtype = OnnxTypes.dtype(tensor);
        return dtype == null ? tensor.onnxType.toString() : dtype.label();
    }

    private static void close(@Nullable OrtSession session) {
        if (session != null) {
            try {
                session.close();
            } catch (OrtException alreadyFailing) {
                return; // what failed before is what the caller hears of
            }
        }
    }
}
