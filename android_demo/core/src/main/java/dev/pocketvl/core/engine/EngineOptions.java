package dev.pocketvl.core.engine;

/**
 * How a graph is to be run.
 *
 * @param threads of one inference, at least 1
 * @param delegate asked for; what took the graph is what {@link Graph#placement} says
 */
public record EngineOptions(int threads, Delegate delegate) {
    /** What may compute a graph in place of an engine's plain kernels. */
    public enum Delegate {
        /** The engine's plain kernels. */
        NONE,
        /** XNNPACK, in TFLite; the CPU execution provider's own kernels, in ONNX Runtime. */
        CPU,
        /** The GPU delegate of TFLite. */
        GPU,
        /** Android's neural networks API. */
        NNAPI
    }
}
