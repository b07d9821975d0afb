package dev.pocketvl.core.tasks;

/**
 * One of the answers that a model knows.
 *
 * @param text the label
 * @param probability its share among all labels, or (of a task with sigmoid) by itself
 */
public record Answer(String text, double probability) {}
