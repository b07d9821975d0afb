package dev.pocketvl.core.manifest;

import dev.pocketvl.core.engine.DType;
import dev.pocketvl.core.json.JsonValue;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * A set of graph files that answer together.
 *
 * @param engine what runs them
 * @param precision of weights and activations
 * @param status whether it passed the gate
 * @param minEngine the oldest version of the engine that computes it rightly; null: any
 * @param files by component
 * @param comparable spaces that its vectors may be compared with
 */
public record Variant(
        EngineKind engine,
        Precision precision,
        Status status,
        @Nullable String minEngine,
        Map<String, StoredGraph> files,
        List<Comparable> comparable) {
    public Variant {
        files = Ordered.copy(files);
        comparable = List.copyOf(comparable);
    }

    /** What runs graphs. */
    public enum EngineKind {
        ONNX,
        TFLITE
    }

    /** What weights and activations are held in; int8 is static, int8dyn, int4 and int2 dynamic, mixed several. */
    public enum Precision {
        FP32,
        FP16,
        INT8,
        INT8DYN,
        INT4,
        INT2,
        MIXED
    }

    /** Whether a variant passed the gate; one that did not is never taken by default. */
    public enum Status {
        ACCEPTED,
        EXPERIMENTAL
    }

    /** When ranges of quantized activations are set: never, at export, at each run, or as layers differ. */
    public enum Mode {
        FLOAT,
        STATIC,
        DYNAMIC,
        MIXED
    }

    /**
     * Where a component lies.
     *
     * @param file the graph, in the bundle
     * @param signature of a TFLite file, or null: its only one
     * @param ports those that differ from the component's contract, by name
     * @param weights the file with what an ONNX graph keeps outside its own, or null: it has all
     */
    public record StoredGraph(
            String file, @Nullable String signature, Map<String, PortOverride> ports, @Nullable String weights) {
        public StoredGraph {
            ports = Ordered.copy(ports);
        }
    }

    /**
     * How a port differs from its component's contract.
     *
     * @param dtype another, or null
     * @param shape another, or empty
     */
    public record PortOverride(@Nullable DType dtype, List<Size> shape) {
        public PortOverride {
            shape = List.copyOf(shape);
        }
    }

    /**
     * A space whose vectors may be compared with a variant's.
     *
     * @param space of embeddings
     * @param centredCosineMedian by component, what that loses
     */
    public record Comparable(String space, Map<String, Double> centredCosineMedian) {
        public Comparable {
            centredCosineMedian = Ordered.copy(centredCosineMedian);
        }
    }

    /** Its name, {@code <engine>-<precision>}. */
    public String name() {
        return JsonValue.label(engine) + "-" + JsonValue.label(precision);
    }
}
