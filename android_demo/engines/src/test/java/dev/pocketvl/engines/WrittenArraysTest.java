package dev.pocketvl.engines;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.google.gson.Gson;
import dev.pocketvl.core.engine.DType;
import dev.pocketvl.core.engine.Engine;
import dev.pocketvl.core.engine.EngineOptions;
import dev.pocketvl.core.engine.EngineOptions.Delegate;
import dev.pocketvl.core.engine.Graph;
import dev.pocketvl.core.engine.GraphSpec;
import dev.pocketvl.core.engine.Tensor;
import dev.pocketvl.core.engine.TensorSpec;
import dev.pocketvl.engines.onnx.OnnxEngine;
import dev.pocketvl.engines.tflite.DesktopTflite;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/** Each graph of real bundles gives what Python's engine of the same version gives; tests.android.write_arrays writes the cases. */
final class WrittenArraysTest {
    private static final double TOLERANCE = 1e-3;

    @TestFactory
    Stream<DynamicTest> graphs_of_bundles_give_what_python_gives() throws IOException {
        String folders = System.getProperty("pocketvl.arrays", "");
        assumeTrue(!folders.isEmpty(), "no -Dpocketvl.arrays=FOLDER:FOLDER; tests.android.write_arrays writes them");
        Stream.Builder<DynamicTest> tests = Stream.builder();
        for (String folder : folders.split(":")) {
            Listing listing = new Gson().fromJson(Files.readString(Path.of(folder, "arrays.json")), Listing.class);
            ByteBuffer values = mapped(Path.of(folder, "arrays.bin"));
            for (Entry entry : listing.graphs) {
                String name = Path.of(listing.bundle).getFileName() + " " + entry.variant + " " + entry.component;
                tests.add(DynamicTest.dynamicTest(name, () -> compare(name, listing, entry, values)));
            }
        }
        return tests.build();
    }

    private static void compare(String name, Listing listing, Entry entry, ByteBuffer values) throws IOException {
        Engine engine = entry.engine.equals("onnx") ? new OnnxEngine() : DesktopTflite.engine();
        assertEquals(entry.engine_version, engine.version(), "the arrays were written by another version");
        ByteBuffer content = mapped(Path.of(listing.bundle, entry.file));
        double most = 0;
        double largest = 0;
        try (Graph graph = engine.open(entry.spec(name), content, new EngineOptions(1, Delegate.CPU))) {
            assertEquals(Delegate.CPU, graph.placement().delegate(), () -> graph.placement().toString());
            for (int number = 0; number < listing.cases; number++) {
                Map<String, Tensor> inputs = new LinkedHashMap<>();
                for (Stored input : entry.inputs) {
                    inputs.put(input.name, input.tensor(values, number));
                }
                Map<String, Tensor> outputs = graph.run(inputs);
                for (Stored output : entry.outputs) {
                    float[] wanted = TinyGraphs.floats(output.tensor(values, number));
                    largest = Math.max(largest, difference(wanted, new float[wanted.length]));
                    most = Math.max(most, difference(TinyGraphs.floats(outputs.get(output.name)), wanted));
                }
            }
            System.out.printf(
                    "%s: max difference %.2e, largest output %.3g, %d cases%n", name, most, largest, listing.cases);
        }
        assertTrue(most <= TOLERANCE, name + ": off by up to " + most);
    }

    private static double difference(float[] found, float[] wanted) {
        assertEquals(wanted.length, found.length);
        double most = 0;
        for (int i = 0; i < found.length; i++) {
            double off = Math.abs((double) found[i] - wanted[i]);
            most = Double.isNaN(off) ? Double.POSITIVE_INFINITY : Math.max(most, off);
        }
        return most;
    }

    private static ByteBuffer mapped(Path file) throws IOException {
        try (FileChannel channel = FileChannel.open(file)) {
            return channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size());
        }
    }

    private static final class Listing {
        String bundle = "";
        int cases;
        List<Entry> graphs = List.of();
    }

    private static final class Entry {
        String variant = "";
        String component = "";
        String engine = "";
        String engine_version = "";
        String precision = "";
        String file = "";
        String signature;
        List<Stored> inputs = List.of();
        List<Stored> outputs = List.of();

        GraphSpec spec(String name) {
            return new GraphSpec(
                    name,
                    file,
                    signature,
                    precision,
                    null,
                    inputs.stream().map(Stored::spec).toList(),
                    outputs.stream().map(Stored::spec).toList());
        }
    }

    private static final class Stored {
        String name = "";
        String dtype = "";
        List<Integer> shape = List.of();
        int offset;

        TensorSpec spec() {
            return new TensorSpec(name, type(), shape);
        }

        Tensor tensor(ByteBuffer values, int number) {
            int bytes = GraphChecks.byteCount(spec());
            ByteBuffer own = values.slice(offset + number * bytes, bytes).order(ByteOrder.nativeOrder());
            return new Tensor(type(), shape.stream().mapToInt(Integer::intValue).toArray(), own);
        }

        private DType type() {
            return Arrays.stream(DType.values())
                    .filter(type -> type.label().equals(dtype))
                    .findFirst()
                    .orElseThrow();
        }
    }
}
