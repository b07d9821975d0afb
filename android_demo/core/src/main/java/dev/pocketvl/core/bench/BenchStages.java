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
     * @param times of the answer; what the tokenizer took is counted to the component that reads the text
     * @param total nanoseconds of the whole, decoding included
     */
    public void add(long decode, StageTimes times, long total) {
        Map<String, Long> stages = new LinkedHashMap<>(times.nanoseconds());
        stages.remove(StageTimes.POST);
        Long tokens = stages.remove(StageTimes.TOKENS);
        if (tokens != null) {
            stages.merge(stages.containsKey(StageTimes.FUSION) ? StageTimes.FUSION : StageTimes.TEXT, tokens, Long::sum);
        }
        add("decode", decode);
        stages.forEach(this::add);
        add("total", total);
    }

    /** The statistics of each stage. */
    public Map<String, LatencyStatistics> statistics() {
        Map<String, LatencyStatistics> found = new LinkedHashMap<>();
        milliseconds.forEach((stage, runs) -> found.put(
                stage,
                LatencyStatistics.of(runs.stream().mapToDouble(Double::doubleValue).toArray())));
        return found;
    }

    private void add(String stage, long nanoseconds) {
        milliseconds.computeIfAbsent(stage, key -> new ArrayList<>()).add(nanoseconds / NANOSECONDS_PER_MS);
    }
}
