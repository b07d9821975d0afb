package dev.pocketvl.core.golden;

import dev.pocketvl.core.bundle.Bundle;
import dev.pocketvl.core.errors.BundleException;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * The golden pack of a bundle: inputs with the arrays and answers that they must give. Everything expected is torch's,
 * in fp32.
 *
 * @param inputs by processor
 * @param outputs by {@code component.port}
 * @param answers by task
 * @param tolerances by variant
 */
public record Golden(
        Map<String, List<Input>> inputs,
        Map<String, List<ExpectedArray>> outputs,
        Map<String, List<ExpectedAnswer>> answers,
        Map<String, VariantTolerance> tolerances) {
    /** Its place in a bundle. */
    public static final String FILE = "golden/golden.json";

    /**
     * Reads and checks a bundle's golden pack.
     *
     * @throws BundleException the bundle has none, or it is damaged
     */
    public static Golden read(Bundle bundle) {
        return GoldenReader.read(bundle);
    }

    /** What a processor is given. */
    public sealed interface Input permits GoldenImage, GoldenText, GoldenAudio {
        /** What to call it in messages. */
        String shown();
    }

    /**
     * A picture, and the pixels that must become of it.
     *
     * @param file the original, in the bundle
     * @param pixels a PNG of them, in the bundle
     */
    public record GoldenImage(String file, String pixels) implements Input {
        @Override
        public String shown() {
            return file;
        }
    }

    /**
     * A text, and the ids that must become of it, padding included.
     *
     * @param number in its list
     * @param text what is tokenized
     * @param ids of every token
     */
    public record GoldenText(int number, String text, List<Integer> ids) implements Input {
        @Override
        public String shown() {
            return "golden text " + number;
        }
    }

    /**
     * A sound; this library does not read it.
     *
     * @param file a WAV file, in the bundle
     */
    public record GoldenAudio(String file) implements Input {
        @Override
        public String shown() {
            return file;
        }
    }

    /**
     * What an output must be.
     *
     * @param inputs processor to number in its list of inputs
     * @param values row-major
     */
    public record ExpectedArray(Map<String, Integer> inputs, double[] values) {}

    /**
     * What a task must answer.
     *
     * @param inputs processor to number in its list of inputs
     * @param probability of each text, or label
     * @param similarity cosines, of a contrastive task; else null
     * @param answer the likeliest label, of a task of kind labels; else null
     */
    public record ExpectedAnswer(
            Map<String, Integer> inputs,
            double[] probability,
            double @Nullable [] similarity,
            @Nullable String answer) {}

    /**
     * How far a variant may be off.
     *
     * @param ports by {@code component.port}
     * @param answers by task
     */
    public record VariantTolerance(Map<String, ArrayTolerance> ports, Map<String, AnswerTolerance> answers) {}

    /**
     * How far an array may be off.
     *
     * @param maxAbs largest absolute difference; infinite: any
     * @param cosineMin least cosine with the expected array
     */
    public record ArrayTolerance(double maxAbs, double cosineMin) {}

    /**
     * How far an answer may be off, by largest absolute differences.
     *
     * @param similarity of any cosine
     * @param probability of any probability, and of torch's first over what is put first
     */
    public record AnswerTolerance(double similarity, double probability) {}
}
