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
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/**
 * The graphs of real bundles give what Python's engine of the same version gives; tests.android.write_arrays writes the cases.
 * Within 1e-3 of the same build of an engine, and of other builds where a graph is of floats. Of integers, another build rounds
 * some products by one step apart: the difference is printed, and the answers are counted that differ.
 */
final class WrittenArraysTest {
    @TestFactory
    Stream<DynamicTest> variants_of_bundles_give_what_python_gives() throws IOException {
        String folders = System.getProperty("pocketvl.arrays", "");
        assumeTrue(!folders.isEmpty(), "no -Dpocketvl.arrays=FOLDER:FOLDER; tests.android.write_arrays writes them");
        Stream.Builder<DynamicTest> tests = Stream.builder();
        for (String folder : folders.split(":")) {
            Listing listing = new Gson().fromJson(Files.readString(Path.of(folder, "arrays.json")), Listing.class);
            ByteBuffer values = mapped(Path.of(folder, "arrays.bin"));
            Map<String, List<Entry>> variants = new LinkedHashMap<>();
            for (Entry entry : listing.graphs) {
                variants.computeIfAbsent(entry.variant, name -> new ArrayList<>()).add(entry);
            }
            variants.forEach((variant, graphs) -> {
                String name = Path.of(listing.bundle).getFileName() + " " + variant;
                tests.add(DynamicTest.dynamicTest(name, () -> compare(name, listing, graphs, values)));
            });
        }
        return tests.build();
    }

    private static void compare(String name, Listing listing, List<Entry> graphs, ByteBuffer values)
            throws IOException {
        List<List<float[]>> found = new ArrayList<>();
        for (Entry graph : graphs) {
            found.add(outputs(name + " " + graph.component, listing, graph, values));
        }
        for (int each = 0; each < graphs.get(0).references.size(); each++) {
            List<List<float[]>> wanted = new ArrayList<>();
            double most = 0;
            Reference reference = graphs.get(0).references.get(each);
            for (int graph = 0; graph < graphs.size(); graph++) {
                Stored output = graphs.get(graph).references.get(each).outputs.get(0);
                List<float[]> arrays = output.floats(values, listing.cases);
                most = Math.max(most, difference(found.get(graph), arrays));
                wanted.add(arrays);
            }
            List<Integer> answers = answers(listing, found);
            List<Integer> others = answers(listing, wanted);
            long changed = IntStream.range(0, answers.size())
                    .filter(at -> !answers.get(at).equals(others.get(at)))
                    .count();
            System.out.printf(
                    "%s, %s %s: max difference %.2e, %d of %d first answers differ%n",
                    name, reference.source, reference.version, most, changed, answers.size());
            if (reference.tolerance != null) {
                assertTrue(most <= reference.tolerance, name + " is off " + reference.source + " by up to " + most);
                assertEquals(0, changed, name + ": first answers that differ from " + reference.source);
            }
        }
    }

    /** A graph's only output for each case. */
    private static List<float[]> outputs(String name, Listing listing, Entry entry, ByteBuffer values)
            throws IOException {
        Engine engine = entry.engine.equals("onnx") ? new OnnxEngine() : DesktopTflite.engine();
        for (Reference reference : entry.references) {
            assertEquals(engine.version(), reference.version, "the arrays were written by another version");
            assertEquals(1, reference.outputs.size());
        }
        ByteBuffer content = mapped(Path.of(listing.bundle, entry.file));
        List<float[]> found = new ArrayList<>();
        try (Graph graph = engine.open(entry.spec(name), content, new EngineOptions(1, Delegate.CPU))) {
            assertEquals(Delegate.CPU, graph.placement().delegate(), () -> graph.placement().toString());
            for (int number = 0; number < listing.cases; number++) {
                Map<String, Tensor> inputs = new LinkedHashMap<>();
                for (Stored input : entry.inputs) {
                    inputs.put(input.name, input.tensor(values, number));
                }
                found.add(TinyGraphs.floats(graph.run(inputs).get(entry.references.get(0).outputs.get(0).name)));
            }
        }
        return found;
    }

    /** Which answer comes first: the most similar of all texts for each picture, or the largest logit of each case. */
    private static List<Integer> answers(Listing listing, List<List<float[]>> outputs) {
        if (listing.ranking.equals("largest")) {
            return outputs.get(0).stream()
                    .map(logits -> largest(IntStream.range(0, logits.length)
                            .mapToDouble(i -> logits[i])
                            .toArray()))
                    .toList();
        }
        List<float[]> texts = outputs.get(1);
        return outputs.get(0).stream()
                .map(picture -> largest(
                        texts.stream().mapToDouble(text -> cosine(picture, text)).toArray()))
                .toList();
    }

    private static int largest(double[] values) {
        int at = 0;
        for (int i = 1; i < values.length; i++) {
            at = values[i] > values[at] ? i : at;
        }
        return at;
    }

    private static double cosine(float[] a, float[] b) {
        double product = 0;
        double ofA = 0;
        double ofB = 0;
        for (int i = 0; i < a.length; i++) {
            product += (double) a[i] * b[i];
            ofA += (double) a[i] * a[i];
            ofB += (double) b[i] * b[i];
        }
        return product / Math.sqrt(ofA * ofB);
    }

    private static double difference(List<float[]> found, List<float[]> wanted) {
        double most = 0;
        for (int i = 0; i < found.size(); i++) {
            most = Math.max(most, difference(found.get(i), wanted.get(i)));
        }
        return most;
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
        String ranking = "";
        List<Entry> graphs = List.of();
    }

    private static final class Entry {
        String variant = "";
        String component = "";
        String engine = "";
        String precision = "";
        String file = "";
        String signature;
        List<Stored> inputs = List.of();
        List<Reference> references = List.of();

        GraphSpec spec(String name) {
            return new GraphSpec(
                    name,
                    file,
                    signature,
                    precision,
                    null,
                    inputs.stream().map(Stored::spec).toList(),
                    references.get(0).outputs.stream().map(Stored::spec).toList());
        }
    }

    private static final class Reference {
        String source = "";
        String version = "";
        @Nullable
        Double tolerance;

        List<Stored> outputs = List.of();
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

        List<float[]> floats(ByteBuffer values, int count) {
            return IntStream.range(0, count)
                    .mapToObj(number -> TinyGraphs.floats(tensor(values, number)))
                    .toList();
        }

        private DType type() {
            return Arrays.stream(DType.values())
                    .filter(type -> type.label().equals(dtype))
                    .findFirst()
                    .orElseThrow();
        }
    }
}
