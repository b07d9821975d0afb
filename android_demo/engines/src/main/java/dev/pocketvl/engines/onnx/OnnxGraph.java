package dev.pocketvl.engines.onnx;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import dev.pocketvl.core.engine.GraphSpec;
import dev.pocketvl.core.engine.Placement;
import dev.pocketvl.core.engine.Tensor;
import dev.pocketvl.engines.BufferedGraph;
import dev.pocketvl.engines.GraphChecks;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.Map;

/** A session of ONNX Runtime that reads and writes direct buffers in place. */
final class OnnxGraph extends BufferedGraph {
    private final OrtEnvironment environment;
    private final OrtSession session;
    private final Map<String, OnnxTensor> pinned = new LinkedHashMap<>();

    OnnxGraph(OrtEnvironment environment, OrtSession session, GraphSpec spec, Placement placement) throws OrtException {
        super(spec, placement);
        this.environment = environment;
        this.session = session;
        for (Map.Entry<String, Tensor> output : outputs().entrySet()) {
            pinned.put(output.getKey(), wrapped(output.getValue()));
        }
    }

    @Override
    protected void compute(Map<String, Tensor> inputs) {
        Map<String, OnnxTensor> feed = new LinkedHashMap<>();
        try {
            for (Map.Entry<String, Tensor> input : inputs.entrySet()) {
                feed.put(input.getKey(), wrapped(input.getValue()));
            }
            session.run(feed, pinned).close(); // does not own what was pinned
        } catch (OrtException | RuntimeException | OutOfMemoryError error) {
            throw GraphChecks.failure(spec.graphId() + ": ONNX Runtime failed", error);
        } finally {
            feed.values().forEach(OnnxTensor::close);
        }
    }

    @Override
    protected void release() {
        pinned.values().forEach(OnnxTensor::close);
        try {
            session.close();
        } catch (OrtException error) {
            throw GraphChecks.failure(spec.graphId() + ": ONNX Runtime cannot close it", error);
        }
    }

    /** A direct buffer as ONNX Runtime reads or writes it: no copy. */
    private OnnxTensor wrapped(Tensor tensor) throws OrtException {
        long[] sizes = Arrays.stream(tensor.shape()).asLongStream().toArray();
        ByteBuffer own = tensor.data().slice().order(ByteOrder.nativeOrder());
        return OnnxTensor.createTensor(environment, own, sizes, OnnxTypes.of(tensor.dtype()));
    }
}
