package dev.pocketvl.core.golden;

import dev.pocketvl.core.errors.PocketVLException;
import dev.pocketvl.core.golden.Golden.ArrayTolerance;
import dev.pocketvl.core.golden.Golden.ExpectedArray;
import dev.pocketvl.core.golden.SelfTestReport.Stage;
import dev.pocketvl.core.manifest.PortRef;
import dev.pocketvl.core.tasks.Features;
import dev.pocketvl.core.tasks.Model;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.TreeMap;
import java.util.stream.Collectors;

/** Holds what components give for the golden inputs against what they must give; each is computed once. */
final class GoldenOutputs {
    private final Model model;
    private final Golden golden;
    private final GoldenInputs inputs;
    private final Map<String, Map<String, float[]>> computed = new HashMap<>();

    GoldenOutputs(Model model, Golden golden, GoldenInputs inputs) {
        this.model = model;
        this.golden = golden;
        this.inputs = inputs;
    }

    Stage check(String port, List<ExpectedArray> arrays) {
        Golden.VariantTolerance variant = golden.tolerances().get(model.variant());
        ArrayTolerance limit = variant == null ? null : variant.ports().get(port);
        if (limit == null) {
            return new Stage(port, 0, "", List.of("the golden pack has no tolerance for " + port
                    + " of variant " + model.variant() + "; export the bundle again"));
        }
        List<String> failures = new ArrayList<>();
        Deviation worst = new Deviation(0, 1);
        for (ExpectedArray expected : arrays) {
            try {
                float[] found = of(PortRef.of(port), expected.inputs());
                if (found.length != expected.values().length) {
                    failures.add(shown(expected.inputs()) + ": " + port + " has " + found.length
                            + " values, expected " + expected.values().length);
                    continue;
                }
                Deviation off = Deviation.of(found, expected.values());
                worst = worst.worse(off);
                if (!off.holds(limit)) {
                    failures.add(shown(expected.inputs()) + ": " + port + ": " + off + "; wanted are at least "
                            + limit.cosineMin() + " and at most " + limit.maxAbs());
                }
            } catch (PocketVLException error) {
                failures.add(shown(expected.inputs()) + ": " + error.getMessage());
            }
        }
        return new Stage(port, arrays.size(), worst.toString(), failures);
    }

    /** An output for golden inputs: processor to number. */
    float[] of(PortRef port, Map<String, Integer> numbers) {
        String key = port.component() + new TreeMap<>(numbers);
        Map<String, float[]> outputs = computed.get(key);
        if (outputs == null) {
            Features[] features = numbers.entrySet().stream()
                    .map(each -> inputs.features(each.getKey(), each.getValue()))
                    .toArray(Features[]::new);
            outputs = model.run(port.component(), features);
            computed.put(key, outputs);
        }
        return Objects.requireNonNull(outputs.get(port.port()));
    }

    /** Golden inputs as failures call them. */
    String shown(Map<String, Integer> numbers) {
        return numbers.entrySet().stream()
                .map(each -> golden.inputs().get(each.getKey()).get(each.getValue()).shown())
                .collect(Collectors.joining(" and "));
    }

    /** How far an array is from the expected one. */
    private record Deviation(double maxAbs, double cosine) {
        static Deviation of(float[] found, double[] expected) {
            double worst = 0;
            double product = 0;
            double squares = 0;
            double expectedSquares = 0;
            for (int i = 0; i < found.length; i++) {
                double off = Math.abs(found[i] - expected[i]);
                worst = Double.isNaN(off) ? Double.NaN : Math.max(worst, off);
                product += found[i] * expected[i];
                squares += (double) found[i] * found[i];
                expectedSquares += expected[i] * expected[i];
            }
            return new Deviation(worst, product / Math.max(Math.sqrt(squares * expectedSquares), 1e-12));
        }

        /** Whether it is within a tolerance; NaN is within none. */
        boolean holds(ArrayTolerance limit) {
            return cosine >= limit.cosineMin() && (maxAbs <= limit.maxAbs() || Double.isInfinite(limit.maxAbs()));
        }

        Deviation worse(Deviation other) {
            return new Deviation(Math.max(maxAbs, other.maxAbs), Math.min(cosine, other.cosine));
        }

        @Override
        public String toString() {
            return String.format(Locale.ROOT, "cosine %.6f, off by up to %.2g", cosine, maxAbs);
        }
    }
}
