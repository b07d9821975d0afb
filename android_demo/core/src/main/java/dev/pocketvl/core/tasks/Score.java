package dev.pocketvl.core.tasks;

/**
 * How well a text or label fits a picture.
 *
 * @param text as it was given
 * @param similarity cosine of the two embeddings
 * @param probability its share among all texts given, or (of a task with sigmoid) by itself
 */
public record Score(String text, double similarity, double probability) {}
