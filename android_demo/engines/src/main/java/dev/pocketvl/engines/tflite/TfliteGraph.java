package dev.pocketvl.engines.tflite;

import dev.pocketvl.core.engine.EngineOptions;
import dev.pocketvl.core.engine.EngineOptions.Delegate;
import dev.pocketvl.core.engine.GraphSpec;
import dev.pocketvl.core.engine.Placement;
import dev.pocketvl.core.engine.Tensor;
import dev.pocketvl.core.errors.EngineException;
import dev.pocketvl.engines.BufferedGraph;
import dev.pocketvl.engines.GraphChecks;
import dev.pocketvl.engines.GraphChecks.Found;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import org.tensorflow.lite.Interpreter;

/** An interpreter of TFLite; inputs and outputs go through direct buffers, by the names of the file's signature. */
final class TfliteGraph extends BufferedGraph {
    private final Interpreter interpreter;
    private final String signature;
    private final String engine;

    private TfliteGraph(Interpreter interpreter, GraphSpec spec, String signature, String engine, Placement placement) {
        super(spec, placement);
        this.interpreter = interpreter;
        this.signature = signature;
        this.engine = engine;
    }

    /**
     * Opens a graph.
     *
     * @param file what its signature says
     * @param engine its name and version, for messages
     */
    static TfliteGraph open(
            GraphSpec spec, TfliteFile file, ByteBuffer content, EngineOptions options, String engine) {
        boolean xnnpack = options.delegate() != Delegate.NONE && !XnnpackUse.crashes(spec, engine);
        Interpreter interpreter = null;
        try {
            Interpreter.Options settings = new Interpreter.Options();
            settings.setNumThreads(options.threads());
            settings.setUseXNNPACK(xnnpack);
            interpreter = new Interpreter(content.slice().order(ByteOrder.nativeOrder()), settings);
            interpreter.allocateTensors();
            checkTensors(interpreter, spec, file.signature());
            Placement placement = XnnpackUse.placement(interpreter, file.operators(), options.delegate(), xnnpack);
            return new TfliteGraph(interpreter, spec, file.signature(), engine, placement);
        } catch (RuntimeException | LinkageError | OutOfMemoryError error) {
            if (interpreter != null) {
                interpreter.close();
            }
            throw error instanceof EngineException ours
                    ? ours
                    : GraphChecks.failure(spec.graphId() + ": " + engine + " cannot load it", error);
        }
    }

    @Override
    protected void compute(Map<String, Tensor> inputs) {
        Map<String, Object> feed = new HashMap<>();
        // The interpreter reads from where a buffer begins, whatever its position says.
        inputs.forEach((name, tensor) -> feed.put(name, tensor.data().slice().order(ByteOrder.nativeOrder())));
        Map<String, Object> results = new HashMap<>();
        outputs().forEach((name, tensor) -> results.put(name, tensor.data().rewind()));
        try {
            interpreter.runSignature(feed, results, signature);
        } catch (RuntimeException | OutOfMemoryError error) {
            throw GraphChecks.failure(spec.graphId() + ": " + engine + " failed", error);
        }
    }

    @Override
    protected void release() {
        interpreter.close();
    }

    private static void checkTensors(Interpreter interpreter, GraphSpec spec, String signature) {
        Map<String, Found> inputs = new LinkedHashMap<>();
        for (String name : interpreter.getSignatureInputs(signature)) {
            inputs.put(name, found(interpreter.getInputTensorFromSignature(name, signature)));
        }
        Map<String, Found> results = new LinkedHashMap<>();
        for (String name : interpreter.getSignatureOutputs(signature)) {
            results.put(name, found(interpreter.getOutputTensorFromSignature(name, signature)));
        }
        GraphChecks.checkTensors(spec.graphId(), inputs, spec.inputs());
        GraphChecks.checkTensors(spec.graphId(), results, spec.outputs());
    }

    /** TFLite's names of types are numpy's, in capitals; its signature shape has -1 where a size is not fixed. */
    private static Found found(org.tensorflow.lite.Tensor tensor) {
        return new Found(tensor.dataType().name().toLowerCase(Locale.ROOT), tensor.shapeSignature());
    }
}
