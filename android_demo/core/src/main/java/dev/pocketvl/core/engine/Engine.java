package dev.pocketvl.core.engine;

import dev.pocketvl.core.errors.EngineException;
import java.nio.ByteBuffer;

/** Opens graphs of one kind of file. Implementations are in their own module, beside the engine they wrap. */
public interface Engine {
    /** The engine in manifests: {@code tflite} or {@code onnx}. */
    String name();

    /** The version of the engine, like {@code 2.16.1}, for people. */
    String version();

    /**
     * The version as manifests' {@code min_engine} counts: ONNX Runtime's and LiteRT's own numbers; TensorFlow Lite
     * 2.16.1, LiteRT's predecessor, counts as {@code 0.16.1}.
     */
    default String release() {
        return version();
    }

    /**
     * Opens a graph; its tensors are held against the manifest's, by name.
     *
     * @param spec what the manifest says of it
     * @param content the file, direct (memory-mapped where it can be), from position 0 to the limit; it must not change
     * @param options threads and delegate
     * @throws EngineException the engine refuses the graph, or its tensors are not the manifest's
     */
    Graph open(GraphSpec spec, ByteBuffer content, EngineOptions options);
}
