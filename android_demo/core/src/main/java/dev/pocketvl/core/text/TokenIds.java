package dev.pocketvl.core.text;

/**
 * A text as graphs take it.
 *
 * @param ids padded to the processor's length
 * @param mask 1 where a token stands, 0 where padding does
 * @param truncated whether tokens were cut
 */
public record TokenIds(int[] ids, int[] mask, boolean truncated) {}
