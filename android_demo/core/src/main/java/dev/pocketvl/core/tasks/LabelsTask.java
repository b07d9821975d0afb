package dev.pocketvl.core.tasks;

import dev.pocketvl.core.image.Picture;
import dev.pocketvl.core.manifest.Task;
import java.util.Comparator;
import java.util.List;
import java.util.Objects;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/** Asks a component that reads a picture and a question, and scores a fixed list of answers. */
final class LabelsTask {
    private final Task.Labels task;
    private final Processors.Pictures pictures;
    private final Processors.Texts texts;
    private final LoadedComponent component;

    LabelsTask(
            Task.Labels task, Processors.Pictures pictures, Processors.Texts texts, LoadedComponent component) {
        this.task = task;
        this.pictures = pictures;
        this.texts = texts;
        this.component = component;
    }

    Answers ask(Picture picture, String question) {
        Texts.check("question", question);
        StageClock clock = new StageClock();
        Features pixels = pictures.features(picture, clock);
        Processors.Encoded ids = texts.features(question, clock);
        float[] logits = clock.time(
                StageTimes.FUSION,
                () -> Objects.requireNonNull(
                        component.run(pixels, ids.features()).get(task.logits().port())));
        List<Answer> ranked = clock.time(StageTimes.POST, () -> ranked(logits));
        return new Answers(question, ranked, ids.truncated(), clock.times());
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
