package dev.pocketvl.core.tasks;

import dev.pocketvl.core.bundle.Bundle;
import dev.pocketvl.core.engine.DType;
import dev.pocketvl.core.engine.Engine;
import dev.pocketvl.core.engine.EngineOptions;
import dev.pocketvl.core.engine.Graph;
import dev.pocketvl.core.engine.GraphSpec;
import dev.pocketvl.core.engine.Placement;
import dev.pocketvl.core.engine.Tensor;
import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.errors.EngineException;
import dev.pocketvl.core.errors.InputException;
import dev.pocketvl.core.json.JsonValue;
import dev.pocketvl.core.manifest.Component;
import dev.pocketvl.core.manifest.Port;
import dev.pocketvl.core.manifest.PortKind;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;

/** One component of a variant, loaded. Not to be used from two threads at once. */
public final class LoadedComponent implements AutoCloseable {
    private static final double NORM_TOLERANCE = 1e-2;

    private final String name;
    private final Component contract;
    private final Graph graph;

    private LoadedComponent(String name, Component contract, Graph graph) {
        this.name = name;
        this.contract = contract;
        this.graph = graph;
    }

    /**
     * Loads a component's graph, whose checksum is checked through the mapping that the engine reads.
     *
     * @throws BundleException the variant has no such component, or its file is damaged
     * @throws EngineException the engine refuses the graph
     */
    static LoadedComponent load(
            Bundle bundle, String variant, String component, Engine engine, EngineOptions options) {
        GraphSpec spec = bundle.manifest().graph(variant, component);
        Component contract = Objects.requireNonNull(bundle.manifest().components().get(component));
        return new LoadedComponent(
                variant + ": " + component, contract, engine.open(spec, bundle.read(spec.file()), options));
    }

    /** What took its graph. */
    public Placement placement() {
        return graph.placement();
    }

    /**
     * Runs it.
     *
     * @param made what the processors made of what is asked about
     * @return its float outputs by name, row-major
     * @throws InputException something that it takes was not made
     * @throws EngineException the engine failed, or gave an embedding or logits that cannot be right
     */
    public Map<String, float[]> run(Features... made) {
        Map<String, Tensor> inputs = new HashMap<>();
        for (Port port : contract.inputs()) {
            inputs.put(port.name(), given(port, made));
        }
        Map<String, Tensor> outputs = graph.run(inputs);
        Map<String, float[]> found = new LinkedHashMap<>();
        for (Port port : contract.outputs()) {
            if (port.dtype().isFloat()) {
                float[] values = floats(Objects.requireNonNull(outputs.get(port.name())));
                check(port.kind(), values);
                found.put(port.name(), values);
            }
        }
        return found;
    }

    @Override
    public void close() {
        graph.close();
    }

    private Tensor given(Port port, Features... made) {
        for (Features each : made) {
            Tensor tensor = each.tensors().get(port.kind());
            if (each.processor().equals(port.from()) && tensor != null) {
                return tensor;
            }
        }
        throw new InputException(name + " needs " + JsonValue.label(port.kind()) + " of " + port.from() + " as '"
                + port.name() + "'; give that too");
    }

    /** An answer that cannot be right must not pass as one. */
    private void check(PortKind kind, float[] values) {
        if (kind != PortKind.EMBEDDING && kind != PortKind.CLASS_LOGITS) {
            return;
        }
        double squares = 0;
        for (float value : values) {
            if (!Float.isFinite(value)) {
                throw new EngineException(name + " gave NaN or infinity; use another variant");
            }
            squares += (double) value * value;
        }
        if (kind == PortKind.EMBEDDING && Math.abs(Math.sqrt(squares) - 1) > NORM_TOLERANCE) {
            throw new EngineException(name + " gave a vector of length " + (float) Math.sqrt(squares)
                    + " where 1 is right; use another variant");
        }
    }

    private float[] floats(Tensor tensor) {
        ByteBuffer data = tensor.data().duplicate().order(ByteOrder.nativeOrder());
        if (tensor.dtype() == DType.FLOAT32) {
            float[] values = new float[data.remaining() / Float.BYTES];
            data.asFloatBuffer().get(values);
            return values;
        }
        if (tensor.dtype() == DType.FLOAT16) {
            float[] values = new float[data.remaining() / Short.BYTES];
            for (int i = 0; i < values.length; i++) {
                values[i] = widened(data.getShort(data.position() + Short.BYTES * i));
            }
            return values;
        }
        throw new EngineException(name + " gave " + tensor.dtype().label()
                + " where the manifest says float; export the bundle again");
    }

    /** A 16-bit float as a float: {@code Float.float16ToFloat}, which neither Java 17 nor Android 26 has. */
    static float widened(short half) {
        int exponent = half >> 10 & 31;
        int fraction = half & 1023;
        float magnitude = exponent == 31
                ? fraction == 0 ? Float.POSITIVE_INFINITY : Float.NaN
                : exponent == 0 ? fraction * 0x1p-24f : Math.scalb(1024 + fraction, exponent - 25);
        return half < 0 ? -magnitude : magnitude;
    }
}
