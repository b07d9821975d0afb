package dev.pocketvl.core.bench;

import java.util.Arrays;
import java.util.List;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/**
 * Milliseconds of one stage over the counted runs. Percentiles are interpolated linearly, as {@code numpy.percentile}
 * does.
 *
 * @param p10 tenth percentile: the machine at its quickest, and the figure to compare
 * @param median fiftieth percentile
 * @param p90 ninetieth percentile
 * @param p99 ninety-ninth percentile
 * @param max the longest run
 * @param n how many runs
 * @param samples every run, in the order in which they ran, or null: they are not kept
 */
public record LatencyStatistics(
        double p10, double median, double p90, double p99, double max, int n, @Nullable List<Double> samples) {
    /**
     * Of the runs' milliseconds, in any order; they are not kept.
     *
     * @throws IllegalArgumentException there is no run
     */
    public static LatencyStatistics of(double[] milliseconds) {
        return of(milliseconds, false);
    }

    /**
     * Of the runs' milliseconds.
     *
     * @param milliseconds in the order in which they ran
     * @param keepSamples whether these are kept too
     * @throws IllegalArgumentException there is no run
     */
    public static LatencyStatistics of(double[] milliseconds, boolean keepSamples) {
        if (milliseconds.length == 0) {
            throw new IllegalArgumentException("statistics need at least one run");
        }
        double[] sorted = milliseconds.clone();
        Arrays.sort(sorted);
        return new LatencyStatistics(
                percentile(sorted, 0.1),
                percentile(sorted, 0.5),
                percentile(sorted, 0.9),
                percentile(sorted, 0.99),
                sorted[sorted.length - 1],
                sorted.length,
                keepSamples ? Arrays.stream(milliseconds).boxed().collect(Collectors.toList()) : null);
    }

    private static double percentile(double[] sorted, double share) {
        double place = share * (sorted.length - 1);
        int below = (int) place;
        int above = Math.min(below + 1, sorted.length - 1);
        return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
    }
}
