package dev.pocketvl.core.json;

/**
 * A number of a JSON file.
 *
 * @param text as it is written there: 1e-5 and 0.00001 are one number, and a checksum tells them apart
 */
public record JsonNumber(String text) {
    /** Whether it is written without fraction and exponent. */
    public boolean isInteger() {
        return text.chars().allMatch(c -> c == '-' || c >= '0' && c <= '9');
    }
}
