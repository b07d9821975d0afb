package dev.pocketvl.core.golden;

import dev.pocketvl.core.errors.PocketVLException;
import dev.pocketvl.core.golden.Golden.AnswerTolerance;
import dev.pocketvl.core.golden.Golden.ExpectedAnswer;
import dev.pocketvl.core.golden.SelfTestReport.Stage;
import dev.pocketvl.core.manifest.Manifest;
import dev.pocketvl.core.manifest.PortRef;
import dev.pocketvl.core.manifest.Port;
import dev.pocketvl.core.manifest.Task;
import dev.pocketvl.core.tasks.Model;
import dev.pocketvl.core.tasks.Probabilities;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/** Holds what tasks answer to the golden inputs against what they must answer. */
final class GoldenAnswers {
    private final Model model;
    private final Golden golden;
    private final GoldenInputs inputs;
    private final GoldenOutputs outputs;
    private double worst;

    GoldenAnswers(Model model, Golden golden, GoldenInputs inputs, GoldenOutputs outputs) {
        this.model = model;
        this.golden = golden;
        this.inputs = inputs;
        this.outputs = outputs;
    }

    Stage check(String name) {
        List<ExpectedAnswer> rows = golden.answers().getOrDefault(name, List.of());
        Golden.VariantTolerance variant = golden.tolerances().get(model.variant());
        AnswerTolerance limit = variant == null ? null : variant.answers().get(name);
        String lacks = rows.isEmpty() ? "answer" : limit == null ? "tolerance for answers" : null;
        if (limit == null || lacks != null) {
            return new Stage(name, 0, "", List.of(
                    "the golden pack has no " + lacks + " of task '" + name + "'; export the bundle again"));
        }
        Task task = Objects.requireNonNull(model.manifest().tasks().get(name));
        worst = 0;
        List<String> failures = new ArrayList<>();
        for (ExpectedAnswer row : rows) {
            String wrong;
            try {
                wrong = task instanceof Task.Labels labels
                        ? wrongLabels(labels, row, limit)
                        : wrongScores((Task.Contrastive) task, row, limit);
            } catch (PocketVLException error) {
                wrong = error.getMessage();
            }
            if (wrong != null) {
                failures.add(name + " of " + outputs.shown(row.inputs()) + ": " + wrong);
            }
        }
        return new Stage(name, rows.size(), String.format(Locale.ROOT, "probabilities off by up to %.2g", worst), failures);
    }

    private @Nullable String wrongLabels(Task.Labels task, ExpectedAnswer row, AnswerTolerance limit) {
        if (!sources(task.logits()).equals(row.inputs().keySet())) {
            return "the task does not take that";
        }
        float[] logits = outputs.of(task.logits(), row.inputs());
        double[] wide = IntStream.range(0, logits.length).mapToDouble(i -> logits[i]).toArray();
        String wrong = wrong(Probabilities.of(wide, task.activation()), row, limit);
        if (wrong != null) {
            return wrong;
        }
        String label = task.labels().get(largest(row.probability()));
        return label.equals(row.answer()) ? null : "'" + label + "' is answered, '" + row.answer() + "' expected";
    }

    private @Nullable String wrongScores(Task.Contrastive task, ExpectedAnswer row, AnswerTolerance limit) {
        boolean first = sources(task.first()).equals(row.inputs().keySet());
        if (!first && !sources(task.second()).equals(row.inputs().keySet())) {
            return "neither side of the task takes that";
        }
        float[] one = outputs.of(first ? task.first() : task.second(), row.inputs());
        double[] similarities = others(task, first ? task.second() : task.first()).stream()
                .mapToDouble(other -> Probabilities.similarity(one, other))
                .toArray();
        double[] expected = row.similarity();
        if (similarities.length == row.probability().length) {
            double off = expected == null ? Double.NaN : worst(similarities, expected);
            if (!(off <= limit.similarity())) {
                return String.format(Locale.ROOT, "a similarity is off by %.4f, at most %.4f expected", off, limit.similarity());
            }
        }
        return wrong(Probabilities.ofSimilarities(similarities, task, first), row, limit);
    }

    /** The embeddings of the labels in their template, or of all golden inputs of a side. */
    private List<float[]> others(Task.Contrastive task, PortRef side) {
        String processor = sources(side).iterator().next();
        String template = task.template();
        if (task.labels() != null && template != null) {
            return task.labels().stream()
                    .map(label -> inputs.features(processor, template.replace("{label}", label)))
                    .map(features -> Objects.requireNonNull(
                            model.run(side.component(), features).get(side.port())))
                    .collect(Collectors.toList());
        }
        int count = golden.inputs().getOrDefault(processor, List.of()).size();
        return IntStream.range(0, count)
                .mapToObj(number -> outputs.of(side, Map.of(processor, number)))
                .collect(Collectors.toList());
    }

    /** The processors of an output's component. */
    private Set<String> sources(PortRef output) {
        Manifest manifest = model.manifest();
        return Objects.requireNonNull(manifest.components().get(output.component())).inputs().stream()
                .map(Port::from)
                .filter(Objects::nonNull)
                .collect(Collectors.toSet());
    }

    /** What is wrong with probabilities; what comes first counts where torch's lead is more than the tolerance. */
    private @Nullable String wrong(double[] found, ExpectedAnswer row, AnswerTolerance limit) {
        double[] expected = row.probability();
        if (found.length != expected.length) {
            return found.length + " scores, expected " + expected.length;
        }
        double off = worst(found, expected);
        worst = Math.max(worst, off);
        if (!(off <= limit.probability())) {
            return String.format(Locale.ROOT, "a probability is off by %.4f, at most %.4f expected", off, limit.probability());
        }
        int right = largest(expected);
        int first = largest(found);
        return expected[right] - expected[first] > limit.probability()
                ? "number " + first + " comes first where " + right + " is right"
                : null;
    }

    private static double worst(double[] found, double[] expected) {
        return IntStream.range(0, found.length).mapToDouble(i -> Math.abs(found[i] - expected[i])).max().orElse(0);
    }

    private static int largest(double[] values) {
        int best = 0;
        for (int i = 1; i < values.length; i++) {
            best = values[i] > values[best] ? i : best;
        }
        return best;
    }
}
