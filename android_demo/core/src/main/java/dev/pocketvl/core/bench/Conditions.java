package dev.pocketvl.core.bench;

import java.util.List;
import java.util.Objects;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/**
 * What the machine was like while it was measured.
 *
 * @param intervalS seconds that were to lie between two samples
 * @param samples in the order in which they were taken
 * @param throttled whether it was slowed down to stay cool, or null: not known
 * @param warnings what makes the figures doubtful, in words
 */
public record Conditions(double intervalS, List<Sample> samples, @Nullable Boolean throttled, List<String> warnings) {
    public Conditions {
        samples = List.copyOf(samples);
        warnings = List.copyOf(warnings);
    }

    /**
     * One moment.
     *
     * @param atS seconds since the first sample
     * @param mhz frequency of each processor that tells it, or null: none does
     * @param temperatureC of the processor, or null: not known
     * @param powerW what the battery gave, in watts, or null: not known, or it was being charged
     */
    public record Sample(
            double atS, @Nullable List<Double> mhz, @Nullable Double temperatureC, @Nullable Double powerW) {}

    /** Joules that the battery gave from the first sample to the last, or null: not known for all of that time. */
    public @Nullable Double energyJ() {
        double joules = 0;
        for (int i = 1; i < samples.size(); i++) {
            Double before = samples.get(i - 1).powerW();
            Double after = samples.get(i).powerW();
            if (before == null || after == null) {
                return null;
            }
            joules += (before + after) / 2 * (samples.get(i).atS() - samples.get(i - 1).atS());
        }
        return samples.size() > 1 ? joules : null;
    }

    /** The mean frequency of the processors over a time, in MHz, or null: not known. */
    @Nullable Double meanMhz(double fromS, double toS) {
        return mean(fromS, toS, sample -> {
            List<Double> mhz = sample.mhz();
            return mhz == null || mhz.isEmpty()
                    ? null
                    : mhz.stream().mapToDouble(Double::doubleValue).average().getAsDouble();
        });
    }

    /** The mean temperature over a time, or null: not known. */
    @Nullable Double meanTemperatureC(double fromS, double toS) {
        return mean(fromS, toS, Sample::temperatureC);
    }

    private @Nullable Double mean(double fromS, double toS, Function<Sample, @Nullable Double> of) {
        double[] known = samples.stream()
                .filter(sample -> sample.atS() >= fromS && sample.atS() < toS)
                .map(of)
                .filter(Objects::nonNull)
                .mapToDouble(Double::doubleValue)
                .toArray();
        double sum = 0;
        for (double value : known) {
            sum += value;
        }
        return known.length == 0 ? null : sum / known.length;
    }
}
