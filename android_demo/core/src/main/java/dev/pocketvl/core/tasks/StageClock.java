package dev.pocketvl.core.tasks;

import java.util.LinkedHashMap;
import java.util.Map;
import java.util.function.Supplier;

/** Adds up how long stages take. */
final class StageClock {
    private final Map<String, Long> nanoseconds = new LinkedHashMap<>();

    <T> T time(String stage, Supplier<T> work) {
        long start = System.nanoTime();
        T made = work.get();
        nanoseconds.merge(stage, System.nanoTime() - start, Long::sum);
        return made;
    }

    StageTimes times() {
        return new StageTimes(nanoseconds);
    }
}
