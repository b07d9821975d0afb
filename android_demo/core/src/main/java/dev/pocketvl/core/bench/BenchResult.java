package dev.pocketvl.core.bench;

import com.google.gson.stream.JsonWriter;
import java.io.IOException;
import java.io.StringWriter;
import java.io.UncheckedIOException;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * What a bench measured, as docs/BENCH.md has it.
 *
 * @param tool that measured
 * @param machine where
 * @param modelName as the manifest has it
 * @param manifestFileSha256 of the bytes of manifest.json
 * @param settings how
 * @param variants by name
 * @param conditions what the machine was like meanwhile
 * @param sustained what variants did under a sustained load
 */
public record BenchResult(
        Software tool,
        Machine machine,
        String modelName,
        String manifestFileSha256,
        Settings settings,
        Map<String, VariantBench> variants,
        Conditions conditions,
        List<SustainedLoad> sustained) {
    private static final String FORMAT = "pocketvl-bench";
    private static final String VERSION = "1.1";

    /**
     * A program or library.
     *
     * @param name as its package is called, like {@code org.tensorflow:tensorflow-lite}
     * @param version its version
     */
    public record Software(String name, String version) {}

    /**
     * How it was measured.
     *
     * @param runs counted runs of each variant at each thread count
     * @param warmupRuns runs of each before those
     * @param interleaved whether a round runs each variant at each thread count once
     * @param seed of the order within rounds, or null: the order is fixed
     * @param inputs {@code golden}, or {@code given} by the user
     */
    public record Settings(
            int runs, int warmupRuns, boolean interleaved, @Nullable Integer seed, String inputs) {}

    /**
     * One variant.
     *
     * @param engine that ran it
     * @param timings one for each thread count
     * @param peakMemoryBytes the largest resident memory of a process that ran nothing else, or null
     * @param steadyMemoryBytes the resident memory of such a process after its counted runs, or null
     * @param notes what the engine did at a cost, in words
     */
    public record VariantBench(
            Software engine,
            List<Timing> timings,
            @Nullable Long peakMemoryBytes,
            @Nullable Long steadyMemoryBytes,
            List<String> notes) {}

    /**
     * One variant at one thread count.
     *
     * @param threads of one inference
     * @param loadMs from the opened bundle to the first question being possible
     * @param stages by name, {@code total} among them
     * @param busyThreads processor time of the counted runs over their duration, or null: the system does not tell
     * @param firstMs the first answer after loading
     * @param coldStartMs from the start of a process that did nothing else to its first answer, or null
     */
    public record Timing(
            int threads,
            double loadMs,
            Map<String, LatencyStatistics> stages,
            @Nullable Double busyThreads,
            double firstMs,
            @Nullable Double coldStartMs) {}

    /** The text of the file. */
    public String toJson() {
        StringWriter text = new StringWriter();
        try {
            JsonWriter json = new JsonWriter(text); // refuses NaN and infinity
            json.setIndent(" ");
            json.beginObject();
            json.name("format").value(FORMAT).name("version").value(VERSION);
            write(json.name("tool"), tool);
            writeMachine(json.name("machine"));
            json.name("bundle").beginObject();
            json.name("name").value(modelName).name("manifest_file_sha256").value(manifestFileSha256);
            json.endObject();
            writeSettings(json.name("settings"));
            json.name("variants").beginObject();
            for (Map.Entry<String, VariantBench> each : variants.entrySet()) {
                write(json.name(each.getKey()), each.getValue());
            }
            json.endObject();
            write(json.name("conditions"), conditions);
            if (!sustained.isEmpty()) {
                json.name("sustained").beginArray();
                for (SustainedLoad load : sustained) {
                    write(json, load);
                }
                json.endArray();
            }
            json.endObject();
        } catch (IOException error) {
            throw new UncheckedIOException("a StringWriter never fails", error);
        }
        return text.append('\n').toString();
    }

    private void writeMachine(JsonWriter json) throws IOException {
        json.beginObject();
        json.name("device").value(machine.device()).name("cpu").value(machine.cpu());
        json.name("architecture").value(machine.architecture()).name("isa").value(machine.isa());
        json.name("exact_int8").value(machine.exactInt8());
        json.name("processors").value(machine.processors());
        json.name("usable_processors").value(machine.usableProcessors());
        json.name("memory_bytes").value(machine.memoryBytes()).name("os").value(machine.os());
        write(json.name("governors"), machine.governors());
        json.name("emulated").value(machine.emulated());
        writeIfKnown(json, "mhz_max", machine.mhzMax());
        json.endObject();
    }

    private void writeSettings(JsonWriter json) throws IOException {
        json.beginObject();
        json.name("runs").value(settings.runs()).name("warmup_runs").value(settings.warmupRuns());
        json.name("interleaved").value(settings.interleaved()).name("seed").value(settings.seed());
        json.name("inputs").value(settings.inputs());
        json.endObject();
    }

    private static void write(JsonWriter json, VariantBench variant) throws IOException {
        json.beginObject();
        write(json.name("engine"), variant.engine());
        json.name("timings").beginArray();
        for (Timing timing : variant.timings()) {
            json.beginObject();
            json.name("threads").value(timing.threads()).name("load_ms").value(timing.loadMs());
            json.name("stages").beginObject();
            for (Map.Entry<String, LatencyStatistics> stage : timing.stages().entrySet()) {
                write(json.name(stage.getKey()), stage.getValue());
            }
            json.endObject();
            writeIfKnown(json, "busy_threads", timing.busyThreads());
            json.name("first_ms").value(timing.firstMs());
            writeIfKnown(json, "cold_start_ms", timing.coldStartMs());
            json.endObject();
        }
        json.endArray();
        json.name("peak_memory_bytes").value(variant.peakMemoryBytes());
        writeIfKnown(json, "steady_memory_bytes", variant.steadyMemoryBytes());
        write(json.name("notes"), variant.notes());
        json.endObject();
    }

    private static void write(JsonWriter json, LatencyStatistics stage) throws IOException {
        json.beginObject();
        json.name("p10").value(stage.p10()).name("median").value(stage.median());
        json.name("p90").value(stage.p90()).name("p99").value(stage.p99());
        json.name("max").value(stage.max()).name("n").value(stage.n());
        if (stage.samples() != null) {
            writeNumbers(json.name("samples"), stage.samples());
        }
        json.endObject();
    }

    private static void write(JsonWriter json, Conditions conditions) throws IOException {
        json.beginObject();
        json.name("interval_s").value(conditions.intervalS()).name("samples").beginArray();
        for (Conditions.Sample sample : conditions.samples()) {
            json.beginObject().name("at_s").value(sample.atS());
            writeNumbers(json.name("mhz"), sample.mhz());
            json.name("temperature_c").value(sample.temperatureC());
            json.name("other_load").nullValue(); // Android's apps may not read /proc/stat
            json.name("power_w").value(sample.powerW()).endObject();
        }
        json.endArray();
        json.name("throttled").value(conditions.throttled()).name("energy_j").value(conditions.energyJ());
        write(json.name("warnings"), conditions.warnings());
        json.endObject();
    }

    private static void write(JsonWriter json, SustainedLoad load) throws IOException {
        json.beginObject();
        json.name("variant").value(load.variant()).name("threads").value(load.threads());
        json.name("duration_s").value(load.durationS()).name("windows").beginArray();
        for (SustainedLoad.Window window : load.windows()) {
            json.beginObject().name("at_s").value(window.atS()).name("median_ms").value(window.medianMs());
            json.name("n").value(window.n()).name("mhz").value(window.mhz());
            json.name("temperature_c").value(window.temperatureC()).endObject();
        }
        json.endArray();
        json.name("first_ms").value(load.firstMs()).name("last_ms").value(load.lastMs());
        json.name("slowdown").value(load.slowdown()).endObject();
    }

    private static void writeIfKnown(JsonWriter json, String name, @Nullable Number value) throws IOException {
        if (value != null) {
            json.name(name).value(value);
        }
    }

    private static void writeNumbers(JsonWriter json, @Nullable List<Double> numbers) throws IOException {
        if (numbers == null) {
            json.nullValue();
            return;
        }
        json.beginArray();
        for (Double number : numbers) {
            json.value(number);
        }
        json.endArray();
    }

    private static void write(JsonWriter json, Software software) throws IOException {
        json.beginObject();
        json.name("name").value(software.name()).name("version").value(software.version());
        json.endObject();
    }

    private static void write(JsonWriter json, List<String> words) throws IOException {
        json.beginArray();
        for (String word : words) {
            json.value(word);
        }
        json.endArray();
    }
}
