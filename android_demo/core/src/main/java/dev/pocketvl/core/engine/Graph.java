package dev.pocketvl.core.engine;

import dev.pocketvl.core.errors.EngineException;
import java.util.Map;

/** One graph, loaded. Not to be used from two threads at once. */
public interface Graph extends AutoCloseable {
    /**
     * Computes the outputs.
     *
     * @param inputs by the names of the {@link GraphSpec}
     * @return outputs by name; valid until the next run
     * @throws EngineException inputs are not those of the graph, or the engine failed
     */
    Map<String, Tensor> run(Map<String, Tensor> inputs);

    /** What took the graph, and why not what was asked for. */
    Placement placement();

    /** Frees native memory; the graph must not be used again. */
    @Override
    void close();
}
