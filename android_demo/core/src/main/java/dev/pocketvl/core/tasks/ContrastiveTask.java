package dev.pocketvl.core.tasks;

import dev.pocketvl.core.errors.InputException;
import dev.pocketvl.core.image.Picture;
import dev.pocketvl.core.manifest.Task;
import dev.pocketvl.core.text.TokenIds;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/** Holds a picture's embedding against those of texts: {@code activation(scale * cosine + bias)}. */
final class ContrastiveTask {
    private static final String SLOT = "{label}";

    private final Task.Contrastive task;
    private final boolean imageFirst;
    private final ImageEncoder images;
    private final TextEncoder texts;
    /** Of the bundle's own labels, which never change; null: not yet computed. */
    private @Nullable Map<String, Embedded> labels;

    /**
     * @param imageFirst whether the task's {@code first} is the picture's embedding
     */
    ContrastiveTask(Task.Contrastive task, boolean imageFirst, ImageEncoder images, TextEncoder texts) {
        this.task = task;
        this.imageFirst = imageFirst;
        this.images = images;
        this.texts = texts;
    }

    /** Turns pictures into embeddings. */
    record ImageEncoder(Processors processors, String processor, LoadedComponent component, String output) {
        float[] embed(Picture picture, StageClock clock) {
            byte[] pixels = clock.time(StageTimes.PREPROCESS, () -> processors.pixels(processor, picture));
            return clock.time(StageTimes.IMAGE, () -> embedding(component, output, processors.features(processor, pixels)));
        }
    }

    /** Turns texts into embeddings. */
    record TextEncoder(Processors processors, String processor, LoadedComponent component, String output) {
        Embedded embed(String text, StageClock clock) {
            TokenIds ids = clock.time(StageTimes.TOKENS, () -> processors.ids(processor, text));
            float[] values = clock.time(
                    StageTimes.TEXT, () -> embedding(component, output, processors.features(processor, ids)));
            return new Embedded(values, ids.truncated());
        }
    }

    private static float[] embedding(LoadedComponent component, String output, Features features) {
        return Objects.requireNonNull(component.run(features).get(output));
    }

    /** A text's embedding, and whether tokens of the text were cut. */
    record Embedded(float[] values, boolean truncated) {}

    ImageEncoder images() {
        return images;
    }

    TextEncoder texts() {
        return texts;
    }

    Match match(Picture picture, List<String> given) {
        Texts.check("text", given);
        StageClock clock = new StageClock();
        float[] seen = images.embed(picture, clock);
        return answer(seen, given, given.stream().map(text -> texts.embed(text, clock)).collect(Collectors.toList()), clock);
    }

    /** The bundle's own labels, embedded at the first call and kept. */
    Match classify(Picture picture) {
        if (task.labels() == null || task.labels().isEmpty()) {
            throw new InputException("this bundle has no labels of its own: give some");
        }
        StageClock clock = new StageClock();
        float[] seen = images.embed(picture, clock);
        Map<String, Embedded> known = labels;
        if (known == null) {
            known = new LinkedHashMap<>();
            for (String label : task.labels()) {
                Texts.check("label", label);
                if (!known.containsKey(label)) {
                    known.put(label, texts.embed(inTemplate(label), clock));
                }
            }
            labels = known;
        }
        return answer(seen, task.labels(), task.labels().stream().map(known::get).collect(Collectors.toList()), clock);
    }

    Match classify(Picture picture, List<String> given) {
        Texts.check("label", given);
        StageClock clock = new StageClock();
        float[] seen = images.embed(picture, clock);
        List<Embedded> read =
                given.stream().map(label -> texts.embed(inTemplate(label), clock)).collect(Collectors.toList());
        return answer(seen, given, read, clock);
    }

    private String inTemplate(String label) {
        String template = task.template();
        return template == null ? label : template.replace(SLOT, label);
    }

    private Match answer(float[] seen, List<String> given, List<Embedded> read, StageClock clock) {
        List<Score> scores = clock.time(StageTimes.POST, () -> scores(seen, given, read));
        List<String> truncated = new ArrayList<>();
        for (int i = 0; i < given.size(); i++) {
            if (read.get(i).truncated()) {
                truncated.add(given.get(i));
            }
        }
        return new Match(scores, truncated, clock.times());
    }

    private List<Score> scores(float[] seen, List<String> given, List<Embedded> read) {
        double[] similarities = read.stream()
                .mapToDouble(each -> Probabilities.similarity(seen, each.values()))
                .toArray();
        double[] probabilities = Probabilities.ofSimilarities(similarities, task, imageFirst);
        List<Score> scores = new ArrayList<>();
        for (int i = 0; i < similarities.length; i++) {
            scores.add(new Score(given.get(i), similarities[i], probabilities[i]));
        }
        return scores;
    }
}
