package dev.pocketvl.core.tasks;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;

import dev.pocketvl.core.manifest.Activation;
import dev.pocketvl.core.manifest.PortRef;
import dev.pocketvl.core.manifest.Task;
import org.junit.jupiter.api.Test;

/** What is expected was computed by pocketvl_runtime.tasks. */
class ProbabilitiesTest {
    private static final double[] LOGITS = {-1.5, 0.25, 3, 3};
    private static final double[] SOFTMAX = {
        0.005353638176005717, 0.030808060574008936, 0.48191915062499274, 0.48191915062499274
    };
    private static final double[] SIGMOID = {
        0.18242552380635632, 0.5621765008857981, 0.9525741268224333, 0.9525741268224333
    };

    @Test
    void softmax() {
        assertArrayEquals(SOFTMAX, Probabilities.of(LOGITS, Activation.SOFTMAX), 1e-15);
    }

    @Test
    void softmaxOfLargeLogitsDoesNotOverflow() {
        assertArrayEquals(new double[] {0, 1}, Probabilities.of(new double[] {-1e9, 1e9}, Activation.SOFTMAX), 0);
    }

    @Test
    void sigmoid() {
        assertArrayEquals(SIGMOID, Probabilities.of(LOGITS, Activation.SIGMOID), 1e-15);
        assertArrayEquals(new double[] {0, 1}, Probabilities.of(new double[] {-1e9, 1e9}, Activation.SIGMOID), 0);
    }

    @Test
    void theScaleIsThatOfTheSideThatIsAskedAbout() {
        Task.Contrastive task = new Task.Contrastive(
                PortRef.of("a.b"), PortRef.of("c.d"), 10, 2, -1, Activation.SIGMOID, null, null);
        assertArrayEquals(
                new double[] {1 / (1 + Math.exp(-4.0))},
                Probabilities.ofSimilarities(new double[] {0.5}, task, true), 1e-15);
        assertArrayEquals(
                new double[] {0.5}, Probabilities.ofSimilarities(new double[] {0.5}, task, false), 1e-15);
    }

    @Test
    void similaritiesAreSummedInDoubles() {
        float[] one = {1e-4f, 1, 1e-4f};
        assertEquals((double) 1e-4f * 1e-4f * 2 + 1, Probabilities.similarity(one, one), 0);
    }

    @Test
    void sixteenBitFloatsAreWidenedExactly() {
        short[] halves = {0x0000, 0x0001, 0x03ff, 0x0400, 0x3c00, (short) 0xc000, 0x7bff, 0x3555};
        float[] wide = {0, 0x1p-24f, 1023 * 0x1p-24f, 0x1p-14f, 1, -2, 65504, 0.333251953125f};
        for (int i = 0; i < halves.length; i++) {
            assertEquals(wide[i], LoadedComponent.widened(halves[i]));
        }
        assertEquals(Float.NEGATIVE_INFINITY, LoadedComponent.widened((short) 0xfc00));
        assertEquals(Float.NaN, LoadedComponent.widened((short) 0x7e00));
    }
}
