package dev.pocketvl.core.bundle;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.pocketvl.core.engine.Engine;
import dev.pocketvl.core.engine.EngineOptions;
import dev.pocketvl.core.engine.EngineVersion;
import dev.pocketvl.core.engine.Graph;
import dev.pocketvl.core.engine.GraphSpec;
import dev.pocketvl.core.errors.EngineException;
import dev.pocketvl.core.manifest.Manifest;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class VariantChoiceTest {
    private static final Engine TFLITE = new Installed("tflite", "2.16.1");
    private static final Engine ONNX = new Installed("onnx", "1.29.0");

    @TempDir
    Path folder;

    /** An engine that is there; what it computes does not matter here. */
    private record Installed(String name, String version) implements Engine {
        @Override
        public Graph open(GraphSpec spec, ByteBuffer content, EngineOptions options) {
            throw new AssertionError("nothing is opened");
        }
    }

    /** A manifest whose variants are these: accepted, unless they end in !; of any engine, but for @. */
    private Manifest manifest(String... variants) throws IOException {
        Path root = TestBundles.copy("format-2.0", folder);
        TestBundles.edit(root, fields -> {
            Map<String, Object> old = TestBundles.at(fields, "variants");
            Map<String, Object> made = new LinkedHashMap<>();
            for (String each : variants) {
                String[] parts = each.replace("!", "").split("@");
                Map<String, Object> variant = new LinkedHashMap<>(TestBundles.at(old, "onnx-fp32"));
                variant.put("engine", parts[0].split("-")[0]);
                variant.put("precision", parts[0].split("-")[1]);
                variant.put("status", each.endsWith("!") ? "experimental" : "accepted");
                variant.put("min_engine", parts.length > 1 ? parts[1] : null);
                made.put(parts[0], variant);
            }
            fields.put("variants", made);
        });
        return Bundle.open(new FolderSource(root)).manifest();
    }

    @Test
    void staticInt8OfTfliteComesFirst() throws IOException {
        Manifest manifest = manifest("onnx-fp32", "onnx-int8", "tflite-int8dyn", "tflite-fp32", "tflite-int8");
        assertEquals("tflite-int8", VariantChoice.preferred(manifest, List.of(ONNX, TFLITE)));
        assertEquals("onnx-int8", VariantChoice.preferred(manifest, List.of(ONNX)));
    }

    @Test
    void fp16ComesBeforeFp32AndThatBeforeOthers() throws IOException {
        Manifest manifest = manifest("tflite-int8dyn", "tflite-fp32", "onnx-fp16");
        assertEquals("onnx-fp16", VariantChoice.preferred(manifest, List.of(ONNX, TFLITE)));
        assertEquals("tflite-fp32", VariantChoice.preferred(manifest, List.of(TFLITE)));
    }

    @Test
    void anExperimentalVariantIsNeverTakenByDefault() throws IOException {
        Manifest manifest = manifest("onnx-fp32", "tflite-int8!");
        assertEquals("onnx-fp32", VariantChoice.preferred(manifest, List.of(ONNX, TFLITE)));
        assertEquals(List.of("onnx-fp32", "tflite-int8"), VariantChoice.runnable(manifest, List.of(ONNX, TFLITE)));
        assertThrows(EngineException.class, () -> VariantChoice.preferred(manifest, List.of(TFLITE)));
    }

    @Test
    void aVariantForANewerEngineIsRefusedAndSaysWhich() throws IOException {
        Manifest manifest = manifest("tflite-int8@2.17", "tflite-fp32@2.16.1");
        assertEquals("tflite-fp32", VariantChoice.preferred(manifest, List.of(TFLITE)));
        String said = assertThrows(
                        EngineException.class,
                        () -> VariantChoice.engineFor(manifest, "tflite-int8", List.of(TFLITE)))
                .getMessage();
        assertTrue(said.contains("needs tflite 2.17 or newer, and this is 2.16.1"), said);
    }

    @Test
    void anEngineThatTheAppHasNotIsNamed() throws IOException {
        Manifest manifest = manifest("onnx-fp32");
        String said = assertThrows(
                        EngineException.class, () -> VariantChoice.engineFor(manifest, "onnx-fp32", List.of(TFLITE)))
                .getMessage();
        assertTrue(said.contains("needs the engine onnx, which this app does not have"), said);
    }

    @ParameterizedTest
    @CsvSource({
        "2.16.1,2.16.1,true", "2.16.1,2.16,true", "2.16,2.16.1,false", "2.9,2.16,false", "10.0,9.9,true",
        "1.29.0-rc1,1.29,true", "unknown,1.0,true", "2,2.0.0,true", "1.99999999999999999999,1.3,true"
    })
    void versionsAreComparedByTheirNumbers(String version, String least, boolean enough) {
        assertEquals(enough, EngineVersion.isAtLeast(version, least));
    }
}
