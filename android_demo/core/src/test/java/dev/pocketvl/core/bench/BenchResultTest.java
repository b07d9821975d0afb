package dev.pocketvl.core.bench;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.networknt.schema.InputFormat;
import com.networknt.schema.JsonSchema;
import com.networknt.schema.JsonSchemaFactory;
import com.networknt.schema.SpecVersion.VersionFlag;
import dev.pocketvl.core.bench.BenchResult.Settings;
import dev.pocketvl.core.bench.BenchResult.Software;
import dev.pocketvl.core.bench.BenchResult.Timing;
import dev.pocketvl.core.bench.BenchResult.VariantBench;
import dev.pocketvl.core.tasks.StageTimes;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class BenchResultTest {
    private static JsonSchema schema() throws IOException {
        return JsonSchemaFactory.getInstance(VersionFlag.V202012)
                .getSchema(Files.readString(Path.of("..", "..", "docs", "bench.schema.json")));
    }

    private static Map<String, LatencyStatistics> stages() {
        BenchStages stages = new BenchStages();
        Map<String, Long> times = new LinkedHashMap<>();
        times.put("preprocess", 2_000_000L);
        times.put("image", 4_000_000L);
        times.put("tokens", 500_000L);
        times.put("text", 1_000_000L);
        times.put("post", 10_000L);
        stages.add(1_000_000, new StageTimes(times), 8_600_000);
        stages.add(3_000_000, new StageTimes(times), 10_600_000);
        return stages.statistics(true);
    }

    private static Conditions conditions() {
        return new Conditions(
                1,
                List.of(
                        new Conditions.Sample(0, List.of(1800.0, 600.0), 30.5, 2.0),
                        new Conditions.Sample(1, List.of(1800.0, 1000.0), 31.5, 4.0),
                        new Conditions.Sample(3, null, null, 4.0)),
                true,
                List.of("warm"));
    }

    private static BenchResult result(Machine machine) {
        boolean known = machine.memoryBytes() != null;
        Timing timing = new Timing(2, 12.5, stages(), known ? 1.75 : null, 20.5, known ? 800.0 : null);
        VariantBench variant = new VariantBench(
                new Software("org.tensorflow:tensorflow-lite", "2.16.1"),
                List.of(timing),
                known ? 9_000_000L : null,
                known ? 8_000_000L : null,
                List.of("a \"note\""));
        return new BenchResult(
                new Software("pocketvl-core", "0.1.0"),
                machine,
                "tiny",
                "0".repeat(64),
                new Settings(30, 1, true, null, "golden"),
                Map.of("tflite-int8", variant),
                known ? conditions() : new Conditions(1, List.of(), null, List.of()),
                known ? List.of(load()) : List.of());
    }

    /** Answers of 100 ms for 60 s, then of 150 ms for 60 s. */
    private static SustainedLoad load() {
        SustainedLoad.Answers answers = new SustainedLoad.Answers();
        for (double at = 0; at < 120; at += at < 60 ? 0.1 : 0.15) {
            answers.add(at, at < 60 ? 100 : 150);
        }
        return SustainedLoad.of("tflite-int8", 2, 120, answers, conditions(), 0);
    }

    private static Machine machine(Long memory) {
        return new Machine(
                memory == null ? null : "Example 1", "Tensor", "aarch64", "neon+dotprod", true, 8, 4, memory,
                "Android 15", List.of("schedutil"), false, memory == null ? null : 1800.0);
    }

    @Test
    void itIsWhatTheSchemaSays() throws IOException {
        assertEquals("[]", schema().validate(result(machine(8L << 30)).toJson(), InputFormat.JSON).toString());
        assertEquals("[]", schema().validate(result(machine(null)).toJson(), InputFormat.JSON).toString());
    }

    @Test
    void theSchemaNoticesAKeyThatIsMissing() throws IOException {
        String text = result(machine(null)).toJson().replace("\"isa\"", "\"isb\"");
        assertFalse(schema().validate(text, InputFormat.JSON).isEmpty());
    }

    @Test
    void stagesHaveTheNamesOfTheFormat() {
        Map<String, LatencyStatistics> stages = stages();
        assertEquals(
                List.of("decode", "preprocess", "image", "tokens", "text", "post", "total"), List.copyOf(stages.keySet()));
        assertEquals(1, stages.get("text").median());
        assertEquals(0.5, stages.get("tokens").median());
        assertEquals(0.01, stages.get("post").median());
        assertEquals(2, stages.get("decode").median());
        assertEquals(10.6, stages.get("total").max());
        assertEquals(List.of(1.0, 3.0), stages.get("decode").samples());
    }

    @Test
    void aLoadThatSlowsDownShowsIt() {
        SustainedLoad load = load();
        assertEquals(10, load.windows().size());
        assertEquals(100, load.firstMs());
        assertEquals(150, load.lastMs());
        assertEquals(1.5, load.slowdown());
        assertEquals(12, load.windows().get(1).atS());
        assertEquals(80, load.windows().get(9).n(), 1);
        assertEquals((1200.0 + 1400.0) / 2, load.windows().get(0).mhz());
        assertEquals(31, load.windows().get(0).temperatureC());
        assertNull(load.windows().get(1).mhz());
    }

    @Test
    void aShortLoadIsJudgedByItsFirstAndLastWindow() {
        SustainedLoad.Answers answers = new SustainedLoad.Answers();
        answers.add(0, 2000);
        answers.add(2, 900);
        answers.add(2.9, 1100);
        SustainedLoad load = SustainedLoad.of("onnx-fp32", 1, 3, answers, conditions(), 0);
        assertEquals(List.of(0.0, 2.0), load.windows().stream().map(SustainedLoad.Window::atS).toList());
        assertEquals(0.5, load.slowdown());
    }

    @Test
    void energyIsWhatTheBatteryGaveAndUnknownWhereOneSampleIs() {
        assertEquals((2 + 4) / 2.0 * 1 + 4 * 2, conditions().energyJ());
        Conditions charged = new Conditions(
                1,
                List.of(new Conditions.Sample(0, null, null, 2.0), new Conditions.Sample(1, null, null, null)),
                null,
                List.of());
        assertNull(charged.energyJ());
    }

    @Test
    void percentilesAreThoseOfNumpy() {
        // numpy.percentile([5.5, 3.5, 3.0, 9.25, 4.0, 4.25], (10, 50, 90, 99))
        LatencyStatistics found = LatencyStatistics.of(new double[] {5.5, 3.5, 3.0, 9.25, 4.0, 4.25});
        assertEquals(3.25, found.p10(), 1e-12);
        assertEquals(4.125, found.median(), 1e-12);
        assertEquals(7.375, found.p90(), 1e-12);
        assertEquals(9.0625, found.p99(), 1e-12);
        assertEquals(9.25, found.max());
        assertEquals(6, found.n());
        assertEquals(new LatencyStatistics(2, 2, 2, 2, 2, 1, null), LatencyStatistics.of(new double[] {2}));
        assertThrows(IllegalArgumentException.class, () -> LatencyStatistics.of(new double[0]));
    }

    @ParameterizedTest
    @CsvSource({
        "x86_64, flags : fpu avx avx2 avx512bw avx512_vnni, avx512_vnni, true",
        "x86_64, flags : fpu avx avx2 avx512bw avx512_vnni amx_tile amx_int8, avx512_vnni+amx, true",
        "x86_64, flags : fpu avx avx2 avx512bw, avx512, false",
        "x86_64, flags : fpu avx avx2 avx_vnni, avx_vnni, true",
        "x86_64, '', x86_64, false",
        "aarch64, Features : fp asimd asimddp i8mm, neon+dotprod+i8mm, true",
        "aarch64, Features : fp asimd, neon, true",
        "armv7l, Features : neon, armv7l, true"
    })
    void theInstructionSetIsNamedAsTheRuntimeNamesIt(String architecture, String cpuinfo, String isa, boolean exact) {
        assertEquals(isa, Machine.isa(architecture, "processor : 0\n" + cpuinfo + "\n"));
        assertEquals(exact, Machine.isExactInt8(architecture, isa));
    }

    @Test
    void notesMayHoldAnyText() {
        assertTrue(result(machine(null)).toJson().contains("a \\\"note\\\""));
    }
}
