package dev.pocketvl.core.manifest;

/** From logits to probabilities. */
public enum Activation {
    /** Shares of one among all. */
    SOFTMAX,
    /** Each by itself. */
    SIGMOID
}
