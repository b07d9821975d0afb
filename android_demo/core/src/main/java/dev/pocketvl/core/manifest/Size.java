package dev.pocketvl.core.manifest;

import org.jspecify.annotations.Nullable;

/**
 * The size of an axis.
 *
 * @param value at least 1, or -1 where it differs from run to run
 * @param name of one that differs; else null
 */
public record Size(int value, @Nullable String name) {
    /** Whether it is the same in every run. */
    public boolean isFixed() {
        return name == null;
    }

    @Override
    public String toString() {
        return name == null ? Integer.toString(value) : name;
    }
}
