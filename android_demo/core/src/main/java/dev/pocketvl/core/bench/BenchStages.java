package dev.pocketvl.core.bench;

import dev.pocketvl.core.tasks.StageTimes;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** Collects the stages of counted runs under the names that docs/BENCH.md gives them. */
public final class BenchStages {
    private static final double NANOSECONDS_PER_MS = 1e6;

    private final Map<String, List<Double>> milliseconds = new LinkedHashMap<>();

    /**
     * Adds a run.
     *
     * @param decode nanoseconds from a file to a picture
     * @param times of the answer, whose stages have the same names there
     * @param total nanoseconds of the whole, decoding included
     */
    public void add(long decode, StageTimes times, long total) {
        add("decode", decode);
        times.nanoseconds().forEach(this::add);
        add("total", total);
    }

    /**
     * The statistics of each stage.
     *
     * @param keepSamples whether every run is kept beside them
     */
    public Map<String, LatencyStatistics> statistics(boolean keepSamples) {
        Map<String, LatencyStatistics> found = new LinkedHashMap<>();
        milliseconds.forEach((stage, runs) -> found.put(
                stage,
                LatencyStatistics.of(runs.stream().mapToDouble(Double::doubleValue).toArray(), keepSamples)));
        return found;
    }

    private void add(String stage, long nanoseconds) {
        milliseconds.computeIfAbsent(stage, key -> new ArrayList<>()).add(nanoseconds / NANOSECONDS_PER_MS);
    }
}
