package dev.pocketvl.core.tasks;

import dev.pocketvl.core.image.Picture;
import dev.pocketvl.core.manifest.Task;
import dev.pocketvl.core.text.TokenIds;
import java.util.Comparator;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/** Asks a component that reads a picture and a question, and scores a fixed list of answers. */
final class LabelsTask {
    private final Task.Labels task;
    private final Processors processors;
    private final String pictures;
    private final String texts;
    private final LoadedComponent component;

    /**
     * @param pictures name of the processor that makes the pixels
     * @param texts name of the processor that makes the ids
     */
    LabelsTask(
            Task.Labels task, Processors processors, String pictures, String texts, LoadedComponent component) {
        this.task = task;
        this.processors = processors;
        this.pictures = pictures;
        this.texts = texts;
        this.component = component;
    }

    Answers ask(Picture picture, String question) {
        Texts.check("question", question);
        StageClock clock = new StageClock();
        byte[] pixels = clock.time(StageTimes.PREPROCESS, () -> processors.pixels(pictures, picture));
        TokenIds ids = clock.time(StageTimes.TOKENS, () -> processors.ids(texts, question));
        float[] logits = clock.time(StageTimes.FUSION, () -> logits(pixels, ids));
        List<Answer> ranked = clock.time(StageTimes.POST, () -> ranked(logits));
        return new Answers(question, ranked, ids.truncated(), clock.times());
    }

    private float[] logits(byte[] pixels, TokenIds ids) {
        Map<String, float[]> outputs =
                component.run(processors.features(pictures, pixels), processors.features(texts, ids));
        return Objects.requireNonNull(outputs.get(task.logits().port()));
    }

    /** All labels, the likeliest first, and of equal ones the one that comes first in the manifest. */
    private List<Answer> ranked(float[] logits) {
        double[] wide = IntStream.range(0, logits.length).mapToDouble(i -> logits[i]).toArray();
        double[] probabilities = Probabilities.of(wide, task.activation());
        return IntStream.range(0, probabilities.length)
                .mapToObj(i -> new Answer(task.labels().get(i), probabilities[i]))
                .sorted(Comparator.comparingDouble(Answer::probability).reversed())
                .collect(Collectors.toList());
    }
}
