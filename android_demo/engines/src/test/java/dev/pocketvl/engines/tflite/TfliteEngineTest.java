package dev.pocketvl.engines.tflite;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.pocketvl.core.engine.Engine;
import dev.pocketvl.core.engine.EngineOptions;
import dev.pocketvl.core.engine.EngineOptions.Delegate;
import dev.pocketvl.core.engine.Graph;
import dev.pocketvl.core.engine.GraphSpec;
import dev.pocketvl.engines.EngineContract;
import dev.pocketvl.engines.TinyGraphs;
import java.nio.ByteBuffer;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

final class TfliteEngineTest extends EngineContract {
    @BeforeEach
    void needs_the_library() {
        DesktopTflite.engine();
    }

    @Override
    protected Engine engine() {
        return DesktopTflite.engine();
    }

    @Test
    void tensorflows_numbers_count_as_older_than_liteRTs() {
        assertEquals("0.16.1", TfliteEngine.release("2.16.1"));
        assertEquals("0.20.0", TfliteEngine.release("2.20.0"));
        assertEquals("2.1", TfliteEngine.release("2.21.0"));
        assertEquals("1.4.0", TfliteEngine.release("1.4.0"));
        assertEquals("2.3.0", TfliteEngine.release("2.3.0"));
        assertEquals("2.16.1", engine().version());
    }

    @Test
    void blocks_of_4_bits_are_refused_where_they_would_be_computed_wrongly() {
        GraphSpec int4 = TinyGraphs.spec("tflite", "int4", null, TinyGraphs.PIXELS, TinyGraphs.EMBEDDING);
        assertTrue(refusedToOpen(int4, TinyGraphs.image("tflite"), ONE_THREAD).contains("needs tflite 2.1 or newer"));
        GraphSpec int8 = TinyGraphs.spec("tflite", "int8", "0.16", TinyGraphs.PIXELS, TinyGraphs.EMBEDDING);
        engine().open(int8, TinyGraphs.image("tflite"), ONE_THREAD).close();
    }

    /** What a silent loss of XNNPACK would look like, and that ours would be seen: this failed before the shim had a version. */
    @Test
    void xnnpack_took_the_graph_and_answers_as_plain_kernels_do() {
        GraphSpec spec = TinyGraphs.imageSpec("tflite");
        ByteBuffer content = TinyGraphs.image("tflite");
        try (Graph plain = engine().open(spec, content, new EngineOptions(1, Delegate.NONE));
                Graph fast = engine().open(spec, content, ONE_THREAD)) {
            assertEquals(Delegate.NONE, plain.placement().delegate());
            assertEquals(List.of(), plain.placement().notes());
            assertEquals(Delegate.CPU, fast.placement().delegate(), () -> fast.placement().toString());
            assertArrayEquals(
                    TinyGraphs.floats(plain.run(TinyGraphs.pixels(4)).get("embedding")),
                    TinyGraphs.floats(fast.run(TinyGraphs.pixels(4)).get("embedding")),
                    1e-5f);
        }
    }

    @Test
    void a_signature_that_names_other_tensors_is_refused_before_tflite_reads_them() {
        GraphSpec spec = TinyGraphs.imageSpec("tflite");
        byte[] content = TinyGraphs.bytes(TinyGraphs.image("tflite"));
        int refusals = 0;
        for (int at = 0; at + 4 <= content.length; at += 4) {
            // 77 wherever a number below 16 stands: indices of tensors, subgraphs, operators and lengths.
            ByteBuffer changed = TinyGraphs.direct(content).order(java.nio.ByteOrder.LITTLE_ENDIAN);
            int there = changed.getInt(at);
            if (there >= 0 && there < 16) {
                changed.putInt(at, 77);
                try {
                    TfliteFile.read(spec, changed);
                } catch (dev.pocketvl.core.errors.EngineException refused) {
                    assertEquals(1, String.valueOf(refused.getMessage()).split("\\R").length);
                    refusals += String.valueOf(refused.getMessage()).contains("signature names tensor 77") ? 1 : 0;
                }
            }
        }
        assertTrue(refusals >= 1, "no change hit an index of the signature's");
    }

    @Test
    void a_signature_is_found_by_its_name() {
        GraphSpec spec = TinyGraphs.imageSpec("tflite");
        ByteBuffer content = TinyGraphs.image("tflite");
        String name = TfliteFile.read(spec, content).signature();
        GraphSpec named = named(spec, name);
        engine().open(named, content, ONE_THREAD).close();
        String message = refusedToOpen(named(spec, "other"), content, ONE_THREAD);
        assertTrue(message.contains("one signature 'other' is wanted, and it has ['" + name + "']"), message);
    }

    private static GraphSpec named(GraphSpec spec, String signature) {
        return new GraphSpec(
                spec.graphId(), spec.file(), signature, spec.precision(), null, spec.inputs(), spec.outputs());
    }
}
