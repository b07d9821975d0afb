package dev.pocketvl.engines.onnx;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import dev.pocketvl.core.engine.DType;
import dev.pocketvl.core.engine.Graph;
import dev.pocketvl.core.engine.GraphSpec;
import dev.pocketvl.core.engine.Placement;
import dev.pocketvl.core.engine.Tensor;
import dev.pocketvl.core.engine.TensorSpec;
import dev.pocketvl.core.errors.EngineException;
import dev.pocketvl.engines.GraphChecks;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.LinkedHashMap;
import java.util.Map;

/** A session of ONNX Runtime that reads and writes direct buffers in place. */
final class OnnxGraph implements Graph {
    private final OrtEnvironment environment;
    private final OrtSession session;
    private final GraphSpec spec;
    private final Placement placement;
    private final Map<String, Tensor> outputs = new LinkedHashMap<>();
    private final Map<String, OnnxTensor> pinned = new LinkedHashMap<>();
    private boolean closed;

    OnnxGraph(OrtEnvironment environment, OrtSession session, GraphSpec spec, Placement placement) throws OrtException {
        this.environment = environment;
        this.session = session;
        this.spec = spec;
        this.placement = placement;
        for (TensorSpec output : spec.outputs()) {
            ByteBuffer data = ByteBuffer.allocateDirect(GraphChecks.byteCount(output)).order(ByteOrder.nativeOrder());
            int[] shape = output.shape().stream().mapToInt(Integer::intValue).toArray();
            outputs.put(output.name(), new Tensor(output.dtype(), shape, data));
            pinned.put(output.name(), wrapped(output.dtype(), shape, data));
        }
    }

    @Override
    public Map<String, Tensor> run(Map<String, Tensor> inputs) {
        if (closed) {
            throw new EngineException(spec.graphId() + " was closed; load it again");
        }
        GraphChecks.checkFeed(spec, inputs);
        Map<String, OnnxTensor> feed = new LinkedHashMap<>();
        try {
            for (Map.Entry<String, Tensor> input : inputs.entrySet()) {
                Tensor tensor = input.getValue();
                feed.put(input.getKey(), wrapped(tensor.dtype(), tensor.shape(), tensor.data()));
            }
            session.run(feed, pinned).close(); // does not own what was pinned
        } catch (OrtException | RuntimeException | OutOfMemoryError error) {
            throw GraphChecks.failure(spec.graphId() + ": ONNX Runtime failed", error);
        } finally {
            feed.values().forEach(OnnxTensor::close);
        }
        outputs.values().forEach(output -> output.data().rewind());
        return Map.copyOf(outputs);
    }

    @Override
    public Placement placement() {
        return placement;
    }

    @Override
    public void close() {
        if (closed) {
            return;
        }
        closed = true;
        pinned.values().forEach(OnnxTensor::close);
        try {
            session.close();
        } catch (OrtException error) {
            throw GraphChecks.failure(spec.graphId() + ": ONNX Runtime cannot close it", error);
        }
    }

    /** A direct buffer as ONNX Runtime reads or writes it: no copy. */
    private OnnxTensor wrapped(DType dtype, int[] shape, ByteBuffer data) throws OrtException {
        long[] sizes = new long[shape.length];
        for (int i = 0; i < shape.length; i++) {
            sizes[i] = shape[i];
        }
        ByteBuffer own = data.slice().order(ByteOrder.nativeOrder());
        return OnnxTensor.createTensor(environment, own, sizes, OnnxTypes.of(dtype));
    }
}
