package dev.pocketvl.engines;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.pocketvl.core.engine.DType;
import dev.pocketvl.core.engine.Engine;
import dev.pocketvl.core.engine.EngineOptions;
import dev.pocketvl.core.engine.EngineOptions.Delegate;
import dev.pocketvl.core.engine.Graph;
import dev.pocketvl.core.engine.GraphSpec;
import dev.pocketvl.core.engine.Tensor;
import dev.pocketvl.core.engine.TensorSpec;
import dev.pocketvl.core.errors.EngineException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;

/** What every engine must do; each one's test adds to it. */
public abstract class EngineContract {
    protected static final EngineOptions ONE_THREAD = new EngineOptions(1, Delegate.CPU);

    protected abstract Engine engine();

    private GraphSpec spec() {
        return TinyGraphs.imageSpec(engine().name());
    }

    private ByteBuffer content() {
        return TinyGraphs.image(engine().name());
    }

    protected static String refused(Runnable opening) {
        EngineException error = assertThrows(EngineException.class, opening::run);
        String message = String.valueOf(error.getMessage());
        assertEquals(1, message.split("\\R").length, message);
        return message;
    }

    protected String refusedToOpen(GraphSpec spec, ByteBuffer content, EngineOptions options) {
        return refused(() -> engine().open(spec, content, options).close());
    }

    @Test
    void an_answer_is_of_length_1_and_its_own() {
        try (Graph graph = engine().open(spec(), content(), ONE_THREAD)) {
            float[] first = TinyGraphs.floats(graph.run(TinyGraphs.pixels(1)).get("embedding"));
            float[] second = TinyGraphs.floats(graph.run(TinyGraphs.pixels(2)).get("embedding"));
            float[] again = TinyGraphs.floats(graph.run(TinyGraphs.pixels(1)).get("embedding"));
            assertArrayEquals(first, again, 1e-6f);
            assertFalse(java.util.Arrays.equals(first, second));
            double squares = 0;
            for (float value : first) {
                squares += value * value;
            }
            assertEquals(1, squares, 1e-5);
        }
    }

    @Test
    void inputs_are_read_from_where_their_buffer_stands() {
        try (Graph graph = engine().open(spec(), content(), ONE_THREAD)) {
            float[] wanted = TinyGraphs.floats(graph.run(TinyGraphs.pixels(3)).get("embedding"));
            ByteBuffer larger = ByteBuffer.allocateDirect(64).order(ByteOrder.nativeOrder());
            larger.position(8).put(TinyGraphs.pixels(3).get("pixels").data().duplicate());
            larger.position(8).limit(56);
            Tensor tensor = new Tensor(DType.UINT8, new int[] {1, 4, 4, 3}, larger);
            assertArrayEquals(wanted, TinyGraphs.floats(graph.run(Map.of("pixels", tensor)).get("embedding")), 1e-6f);
            assertEquals(8, larger.position());
        }
    }

    @Test
    void a_graph_whose_tensors_are_not_the_manifests_is_refused() {
        String engine = engine().name();
        TensorSpec wide = new TensorSpec("embedding", DType.FLOAT32, List.of(1, 9));
        TensorSpec ids = new TensorSpec("pixels", DType.INT32, List.of(1, 4, 4, 3));
        TensorSpec other = new TensorSpec("picture", DType.UINT8, List.of(1, 4, 4, 3));
        for (GraphSpec wrong : List.of(
                TinyGraphs.spec(engine, "fp32", null, TinyGraphs.PIXELS, wide),
                TinyGraphs.spec(engine, "fp32", null, ids, TinyGraphs.EMBEDDING),
                TinyGraphs.spec(engine, "fp32", null, other, TinyGraphs.EMBEDDING))) {
            String message = refusedToOpen(wrong, content(), ONE_THREAD);
            assertTrue(message.contains("but the manifest says") && message.contains("export the bundle again"), message);
        }
    }

    @Test
    void inputs_that_do_not_fit_are_refused() {
        try (Graph graph = engine().open(spec(), content(), ONE_THREAD)) {
            Tensor good = TinyGraphs.pixels(1).get("pixels");
            assertTrue(refused(() -> graph.run(Map.of())).contains("takes [pixels], not []"));
            assertTrue(refused(() -> graph.run(Map.of("picture", good))).contains("takes [pixels], not [picture]"));
            Tensor flat = new Tensor(DType.UINT8, new int[] {1, 48}, good.data());
            assertTrue(refused(() -> graph.run(Map.of("pixels", flat))).contains("is uint8 [1, 48], and"));
            Tensor heap = new Tensor(DType.UINT8, good.shape(), ByteBuffer.allocate(48));
            assertTrue(refused(() -> graph.run(Map.of("pixels", heap))).contains("in the Java heap"));
            Tensor shorter = new Tensor(DType.UINT8, good.shape(), ByteBuffer.allocateDirect(47));
            assertTrue(refused(() -> graph.run(Map.of("pixels", shorter))).contains("has 47 bytes, and"));
        }
    }

    @Test
    void numbers_of_threads_that_are_none_are_refused() {
        for (int threads : new int[] {-1, 0, 257}) {
            assertTrue(refusedToOpen(spec(), content(), new EngineOptions(threads, Delegate.CPU)).contains("threads must be"));
        }
    }

    @Test
    void a_file_in_the_java_heap_is_refused() {
        ByteBuffer heap = ByteBuffer.wrap(TinyGraphs.bytes(content()));
        assertTrue(refusedToOpen(spec(), heap, ONE_THREAD).contains("Java heap"));
    }

    @Test
    void what_is_no_graph_is_one_line() {
        for (String text : List.of("", "no graph", "x".repeat(5000))) {
            refusedToOpen(spec(), TinyGraphs.direct(text.getBytes(java.nio.charset.StandardCharsets.UTF_8)), ONE_THREAD);
        }
        byte[] content = TinyGraphs.bytes(content());
        for (int length : new int[] {1, 7, 8, 100, content.length / 2, content.length - 1}) {
            refusedToOpen(spec(), TinyGraphs.direct(java.util.Arrays.copyOf(content, length)), ONE_THREAD);
        }
    }

    @Test
    void too_old_an_engine_is_refused() {
        GraphSpec newer = TinyGraphs.spec(engine().name(), "fp32", "99.1", TinyGraphs.PIXELS, TinyGraphs.EMBEDDING);
        assertTrue(refusedToOpen(newer, content(), ONE_THREAD).contains(engine().name() + " 99.1 or newer"));
        GraphSpec same = TinyGraphs.spec(
                engine().name(), "fp32", engine().release(), TinyGraphs.PIXELS, TinyGraphs.EMBEDDING);
        engine().open(same, content(), ONE_THREAD).close();
    }

    @Test
    void a_closed_graph_says_so() {
        Graph graph = engine().open(spec(), content(), ONE_THREAD);
        graph.close();
        graph.close();
        assertTrue(refused(() -> graph.run(TinyGraphs.pixels(1))).contains("was closed"));
    }

    @Test
    void a_delegate_that_is_not_there_is_told_of() {
        try (Graph graph = engine().open(spec(), content(), new EngineOptions(1, Delegate.GPU))) {
            assertEquals(Delegate.CPU, graph.placement().delegate());
            assertTrue(graph.placement().notes().get(0).contains("16 bits"));
        }
    }

    /** A checksum finds damage before; this is who signs what he damaged. In names and numbers, where engines do check. */
    @Test
    void other_names_and_sizes_in_a_file_are_a_documented_error_or_nothing() {
        byte[] content = TinyGraphs.bytes(content());
        Random random = new Random(7);
        for (int seed = 0; seed < 60; seed++) {
            byte[] changed = content.clone();
            int at = indexOf(changed, seed % 2 == 0 ? "pixels" : "embedding") + random.nextInt(6);
            changed[at] = (byte) random.nextInt(256);
            try (Graph graph = engine().open(spec(), TinyGraphs.direct(changed), ONE_THREAD)) {
                graph.run(TinyGraphs.pixels(1));
            } catch (EngineException error) {
                assertEquals(1, String.valueOf(error.getMessage()).split("\\R").length);
            }
        }
    }

    private static int indexOf(byte[] content, String text) {
        String latin = new String(content, java.nio.charset.StandardCharsets.ISO_8859_1);
        return latin.indexOf(text);
    }
}
