package dev.pocketvl.core.tasks;

import dev.pocketvl.core.manifest.Activation;
import dev.pocketvl.core.manifest.Task;
import java.util.Arrays;

/** From embeddings and logits to probabilities, in doubles. */
public final class Probabilities {
    private Probabilities() {}

    /** The cosine of two L2-normalised embeddings of one length. */
    public static double similarity(float[] one, float[] other) {
        double sum = 0;
        for (int i = 0; i < one.length; i++) {
            sum += (double) one[i] * other[i];
        }
        return sum;
    }

    /**
     * {@code activation(scale * similarity + bias)} of cosines with one embedding.
     *
     * @param oneFirst whether that one is the task's {@code first}
     */
    public static double[] ofSimilarities(double[] similarities, Task.Contrastive task, boolean oneFirst) {
        double scale = oneFirst ? task.firstScale() : task.secondScale();
        return of(Arrays.stream(similarities).map(s -> scale * s + task.bias()).toArray(), task.activation());
    }

    /** {@code activation(logits)}: shares that add up to 1, or each by itself. */
    public static double[] of(double[] logits, Activation activation) {
        if (activation == Activation.SIGMOID) {
            return Arrays.stream(logits).map(logit -> 1 / (1 + Math.exp(-logit))).toArray();
        }
        double largest = Arrays.stream(logits).max().orElse(0);
        double[] powers = Arrays.stream(logits).map(logit -> Math.exp(logit - largest)).toArray();
        double sum = Arrays.stream(powers).sum();
        return Arrays.stream(powers).map(power -> power / sum).toArray();
    }
}
