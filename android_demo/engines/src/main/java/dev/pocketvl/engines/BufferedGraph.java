package dev.pocketvl.engines;

import dev.pocketvl.core.engine.Graph;
import dev.pocketvl.core.engine.GraphSpec;
import dev.pocketvl.core.engine.Placement;
import dev.pocketvl.core.engine.Tensor;
import dev.pocketvl.core.engine.TensorSpec;
import dev.pocketvl.core.errors.EngineException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.LinkedHashMap;
import java.util.Map;

/** A graph whose outputs an engine writes into direct buffers that are made once. */
public abstract class BufferedGraph implements Graph {
    /** What the manifest says of the graph. */
    protected final GraphSpec spec;

    private final Placement placement;
    private final Map<String, Tensor> outputs = new LinkedHashMap<>();
    private boolean closed;

    /** Makes the output buffers of a graph that was loaded. */
    protected BufferedGraph(GraphSpec spec, Placement placement) {
        this.spec = spec;
        this.placement = placement;
        for (TensorSpec output : spec.outputs()) {
            ByteBuffer data = ByteBuffer.allocateDirect(GraphChecks.byteCount(output)).order(ByteOrder.nativeOrder());
            int[] shape = output.shape().stream().mapToInt(Integer::intValue).toArray();
            outputs.put(output.name(), new Tensor(output.dtype(), shape, data));
        }
    }

    @Override
    public final Map<String, Tensor> run(Map<String, Tensor> inputs) {
        if (closed) {
            throw new EngineException(spec.graphId() + " was closed; load it again");
        }
        GraphChecks.checkFeed(spec, inputs);
        compute(inputs);
        outputs.values().forEach(output -> output.data().rewind());
        return Map.copyOf(outputs);
    }

    @Override
    public final Placement placement() {
        return placement;
    }

    @Override
    public final void close() {
        if (!closed) {
            closed = true;
            release();
        }
    }

    /** The tensors to write, by the names of the {@link GraphSpec}. */
    protected final Map<String, Tensor> outputs() {
        return outputs;
    }

    /**
     * Runs the engine; the outputs' positions do not matter afterwards.
     *
     * @param inputs that were held against the {@link GraphSpec}
     * @throws EngineException the engine failed
     */
    protected abstract void compute(Map<String, Tensor> inputs);

    /** Frees native memory; called once. */
    protected abstract void release();
}
