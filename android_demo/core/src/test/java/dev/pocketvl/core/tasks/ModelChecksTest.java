package dev.pocketvl.core.tasks;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.pocketvl.core.bundle.TestBundles;
import dev.pocketvl.core.engine.DType;
import dev.pocketvl.core.engine.Engine;
import dev.pocketvl.core.engine.EngineOptions;
import dev.pocketvl.core.engine.Graph;
import dev.pocketvl.core.engine.GraphSpec;
import dev.pocketvl.core.engine.Placement;
import dev.pocketvl.core.engine.Tensor;
import dev.pocketvl.core.errors.EngineException;
import dev.pocketvl.core.manifest.Manifest;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** What an engine gives that cannot be right never becomes an answer; what cannot be run is told. */
class ModelChecksTest {
    private static final EngineOptions OPTIONS = new EngineOptions(1, EngineOptions.Delegate.CPU);

    /** An engine that is broken: every graph gives one number over and over. */
    private record Broken(float value, int[] closed) implements Engine {
        @Override
        public String name() {
            return "onnx";
        }

        @Override
        public String version() {
            return "1.0";
        }

        @Override
        public Graph open(GraphSpec spec, ByteBuffer content, EngineOptions options) {
            if (Float.isInfinite(value) && spec.graphId().contains("text")) {
                throw new EngineException(spec.graphId() + ": refused");
            }
            return new Graph() {
                @Override
                public Map<String, Tensor> run(Map<String, Tensor> inputs) {
                    ByteBuffer data = ByteBuffer.allocateDirect(32).order(ByteOrder.nativeOrder());
                    for (int i = 0; i < 8; i++) {
                        data.putFloat(4 * i, value);
                    }
                    String output = spec.outputs().get(0).name();
                    return Map.of(output, new Tensor(DType.FLOAT32, new int[] {1, 8}, data));
                }

                @Override
                public Placement placement() {
                    return new Placement(EngineOptions.Delegate.CPU, List.of());
                }

                @Override
                public void close() {
                    closed[0]++;
                }
            };
        }
    }

    @ParameterizedTest
    @ValueSource(floats = {Float.NaN, 0, 0.35f, 0.36f, -3e38f})
    void anEmbeddingThatCannotBeRightIsRefused(float value) {
        try (Model model = Model.load(TestBundles.open("format-2.0"), "onnx-fp32", new Broken(value, new int[1]), OPTIONS)) {
            String said = assertThrows(EngineException.class, () -> model.embedText("red")).getMessage();
            assertTrue(said.contains("use another variant"), said);
        }
    }

    @Test
    void anEmbeddingOfLengthOneIsGivenOut() {
        float value = (float) Math.sqrt(1 / 8.0);
        try (Model model = Model.load(TestBundles.open("format-2.0"), "onnx-fp32", new Broken(value, new int[1]), OPTIONS)) {
            assertEquals(value, model.embedText("red")[7]);
        }
    }

    @Test
    void whatIsOpenIsClosedWhereALaterGraphIsRefused() {
        int[] closed = new int[1];
        Engine engine = new Broken(Float.POSITIVE_INFINITY, closed);
        assertThrows(
                EngineException.class,
                () -> Model.load(TestBundles.open("format-2.0"), "onnx-fp32", engine, OPTIONS));
        assertEquals(1, closed[0]);
    }

    private static Manifest manifest(String name) throws IOException {
        byte[] content = Files.readAllBytes(Path.of("..", "..", "docs", "manifests", name));
        return Manifest.read(ByteBuffer.wrap(content), name);
    }

    @ParameterizedTest
    @CsvSource({"tabletop-clip.json,2", "siglip.json,2", "blip.json,2", "vilt.json,1", "clap.json,0", "smolvlm.json,0"})
    void whatCanBeRunOfTheWrittenManifestsIsKnown(String name, int runnable) throws IOException {
        Manifest manifest = manifest(name);
        Set<String> found = TaskSupport.runnable(manifest).keySet();
        assertEquals(runnable, found.size(), found.toString());
        manifest.tasks().forEach((task, each) ->
                assertEquals(!found.contains(task), TaskSupport.obstacle(manifest, each) != null));
    }

    @Test
    void whatStandsInTheWayIsNamed() throws IOException {
        Manifest listens = manifest("clap.json");
        assertTrue(TaskSupport.obstacle(listens, listens.tasks().values().iterator().next()).contains("log_mel"));
        Manifest reranks = manifest("blip.json");
        assertEquals("tasks of kind 'match'", TaskSupport.obstacle(reranks, reranks.tasks().get("rerank")));
        Manifest writes = manifest("smolvlm.json");
        assertEquals("tasks of kind 'generate'", TaskSupport.obstacle(writes, writes.tasks().values().iterator().next()));
    }
}
