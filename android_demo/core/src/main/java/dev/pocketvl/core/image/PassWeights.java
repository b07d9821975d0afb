package dev.pocketvl.core.image;

import dev.pocketvl.core.image.ImageSettings.Filter;

/**
 * The weights of one resampling pass, for a run of its outputs: output i is the sum of {@code weights[i * taps + k]}
 * times the input {@code first[i] + k}, in units of 2^-22. docs/BUNDLE.md says how they come about.
 *
 * @param first of each output
 * @param counts of inputs of each output, 1 to {@code taps}
 * @param taps the most inputs of any output
 * @param weights row-major [outputs, taps]
 */
record PassWeights(int[] first, int[] counts, int taps, int[] weights) {
    static final int BITS = 22;
    private static final int ONE = 1 << BITS;

    /**
     * Weights of a pass that makes {@code size} pixels of {@code from}.
     *
     * @param begin the first output that is wanted
     * @param end the one behind the last
     */
    static PassWeights of(int from, int size, int begin, int end, Filter filter, boolean antialias) {
        double scale = (double) from / size;
        if (from == size || filter == Filter.NEAREST) {
            return copies(scale, begin, end);
        }
        double wide = antialias ? Math.max(scale, 1) : 1;
        double reach = support(filter) * wide;
        int most = (int) Math.min(from, 2 * reach + 2);
        int[] first = new int[end - begin];
        int[] counts = new int[end - begin];
        int[] weights = new int[Math.multiplyExact(end - begin, most)];
        double[] exact = new double[most];
        for (int i = 0; i < first.length; i++) {
            double centre = (begin + i + 0.5) * scale;
            first[i] = Math.max(0, (int) (centre - reach + 0.5));
            counts[i] = Math.min(from, (int) (centre + reach + 0.5)) - first[i];
            double sum = 0;
            for (int k = 0; k < counts[i]; k++) {
                exact[k] = value(filter, (first[i] + k - centre + 0.5) / wide);
                sum += exact[k];
            }
            for (int k = 0; k < counts[i]; k++) {
                double weight = sum == 0 ? exact[k] : exact[k] / sum;
                weights[i * most + k] = (int) (weight * ONE + (weight < 0 ? -0.5 : 0.5));
            }
        }
        return new PassWeights(first, counts, most, weights);
    }

    /** Weights of a pass that takes pixels as they are, each from where an output's centre lies. */
    private static PassWeights copies(double scale, int begin, int end) {
        int[] first = new int[end - begin];
        int[] ones = new int[end - begin];
        int[] weights = new int[end - begin];
        for (int i = 0; i < first.length; i++) {
            first[i] = (int) ((begin + i + 0.5) * scale);
            ones[i] = 1;
            weights[i] = ONE;
        }
        return new PassWeights(first, ones, 1, weights);
    }

    int outputs() {
        return first.length;
    }

    /** The input behind the last one of an output. */
    int end(int output) {
        return first[output] + counts[output];
    }

    /** The input behind the last one of all. */
    int end() {
        return end(outputs() - 1);
    }

    private static double support(Filter filter) {
        return switch (filter) {
            case NEAREST -> 0;
            case BOX -> 0.5;
            case BILINEAR, HAMMING -> 1;
            case BICUBIC -> 2;
            case LANCZOS -> 3;
        };
    }

    private static double value(Filter filter, double x) {
        double t = Math.abs(x);
        return switch (filter) {
            case NEAREST -> 1;
            case BOX -> x > -0.5 && x <= 0.5 ? 1 : 0;
            case BILINEAR -> t < 1 ? 1 - t : 0;
            // of 32 bits, as Pillow has them
            case HAMMING -> t < 1 ? sinc(t) * (0.54f + 0.46f * StrictMath.cos(t * Math.PI)) : 0;
            case BICUBIC -> bicubic(t);
            case LANCZOS -> x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
        };
    }

    private static double bicubic(double t) {
        if (t < 1) {
            return (1.5 * t - 2.5) * t * t + 1;
        }
        return t < 2 ? (((t - 5) * t + 8) * t - 4) * -0.5 : 0;
    }

    private static double sinc(double x) {
        double angle = x * Math.PI;
        return angle == 0 ? 1 : StrictMath.sin(angle) / angle;
    }
}
