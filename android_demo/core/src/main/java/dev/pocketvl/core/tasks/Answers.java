package dev.pocketvl.core.tasks;

import java.util.List;

/**
 * What a model says to a question about a picture.
 *
 * @param question as it was asked
 * @param ranked all answers that the model knows, the likeliest first
 * @param truncated whether tokens of the question were cut; to be told to the user
 * @param times by stage
 */
public record Answers(String question, List<Answer> ranked, boolean truncated, StageTimes times) {
    public Answers {
        ranked = List.copyOf(ranked);
    }
}
