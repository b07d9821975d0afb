package dev.pocketvl.core.tasks;

import java.util.Comparator;
import java.util.List;
import java.util.stream.Collectors;

/**
 * How well each text fits a picture.
 *
 * @param scores in the order in which the texts were given
 * @param truncated texts of which tokens were cut; to be told to the user
 * @param times by stage
 */
public record Match(List<Score> scores, List<String> truncated, StageTimes times) {
    public Match {
        scores = List.copyOf(scores);
        truncated = List.copyOf(truncated);
    }

    /** The scores, the likeliest first. */
    public List<Score> ranked() {
        return scores.stream()
                .sorted(Comparator.comparingDouble(Score::probability).reversed())
                .collect(Collectors.toList());
    }
}
