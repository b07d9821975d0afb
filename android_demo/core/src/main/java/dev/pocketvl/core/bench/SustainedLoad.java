package dev.pocketvl.core.bench;

import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * One variant that answered again and again without a pause.
 *
 * @param variant its name
 * @param threads of one inference
 * @param durationS how long it answered
 * @param windows that time in parts, in order
 * @param firstMs median of the answers of the first minute, or of the first window where it took less than two
 * @param lastMs likewise of the last
 */
public record SustainedLoad(
        String variant, int threads, double durationS, List<Window> windows, double firstMs, double lastMs) {
    private static final int WINDOWS = 10;
    private static final double MINUTE_S = 60;

    /**
     * A part of that time.
     *
     * @param atS when it began, in seconds since the load's beginning
     * @param medianMs of the answers that began in it
     * @param n how many these are
     * @param mhz mean frequency, or null: not known
     * @param temperatureC mean temperature, or null: not known
     */
    public record Window(double atS, double medianMs, int n, @Nullable Double mhz, @Nullable Double temperatureC) {}

    /** Collects answers. */
    public static final class Answers {
        private final List<double[]> answers = new ArrayList<>();

        /**
         * Adds an answer.
         *
         * @param beganS when it began, in seconds since the load's beginning
         * @param milliseconds that it took
         */
        public void add(double beganS, double milliseconds) {
            answers.add(new double[] {beganS, milliseconds});
        }

        private double @Nullable [] between(double fromS, double toS) {
            double[] found = answers.stream()
                    .filter(answer -> answer[0] >= fromS && answer[0] < toS)
                    .mapToDouble(answer -> answer[1])
                    .toArray();
            return found.length == 0 ? null : found;
        }
    }

    /**
     * Sums up.
     *
     * @param answers at least one, which began at 0
     * @param conditions whose samples tell frequency and temperature
     * @param beganS when the load began, as the samples' times count
     */
    public static SustainedLoad of(
            String variant, int threads, double durationS, Answers answers, Conditions conditions, double beganS) {
        double width = Math.max(1, durationS / WINDOWS);
        List<Window> windows = new ArrayList<>();
        for (int i = 0; i * width < durationS; i++) {
            double from = i * width;
            double[] found = answers.between(from, from + width);
            if (found != null) {
                windows.add(new Window(
                        from,
                        LatencyStatistics.of(found).median(),
                        found.length,
                        conditions.meanMhz(beganS + from, beganS + from + width),
                        conditions.meanTemperatureC(beganS + from, beganS + from + width)));
            }
        }
        double first = windows.get(0).medianMs();
        double last = windows.get(windows.size() - 1).medianMs();
        if (durationS >= 2 * MINUTE_S) {
            double[] early = answers.between(0, MINUTE_S);
            double[] late = answers.between(durationS - MINUTE_S, durationS);
            first = early == null ? first : LatencyStatistics.of(early).median();
            last = late == null ? last : LatencyStatistics.of(late).median();
        }
        return new SustainedLoad(variant, threads, durationS, List.copyOf(windows), first, last);
    }

    /** Above 1: the machine became slower. */
    public double slowdown() {
        return lastMs / firstMs;
    }
}
