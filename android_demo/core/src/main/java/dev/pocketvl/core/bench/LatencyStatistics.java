package dev.pocketvl.core.bench;

import java.util.Arrays;

/**
 * Milliseconds of one stage over the counted runs. Percentiles are interpolated linearly, as {@code numpy.percentile}
 * does.
 *
 * @param p10 tenth percentile: the machine at its quickest, and the figure to compare
 * @param median fiftieth percentile
 * @param p90 ninetieth percentile
 * @param max the longest run
 * @param n how many runs
 */
public record LatencyStatistics(double p10, double median, double p90, double max, int n) {
    /**
     * Of the runs' milliseconds, in any order.
     *
     * @throws IllegalArgumentException there is no run
     */
    public static LatencyStatistics of(double[] milliseconds) {
        if (milliseconds.length == 0) {
            throw new IllegalArgumentException("statistics need at least one run");
        }
        double[] sorted = milliseconds.clone();
        Arrays.sort(sorted);
        return new LatencyStatistics(
                percentile(sorted, 0.1),
                percentile(sorted, 0.5),
                percentile(sorted, 0.9),
                sorted[sorted.length - 1],
                sorted.length);
    }

    private static double percentile(double[] sorted, double share) {
        double place = share * (sorted.length - 1);
        int below = (int) place;
        int above = Math.min(below + 1, sorted.length - 1);
        return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
    }
}
