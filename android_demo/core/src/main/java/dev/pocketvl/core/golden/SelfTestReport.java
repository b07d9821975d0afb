package dev.pocketvl.core.golden;

import java.util.List;

/**
 * What a self-test found.
 *
 * @param variant that was tested
 * @param stages in the order in which they ran
 * @param notes what was not tested, and why
 */
public record SelfTestReport(String variant, List<Stage> stages, List<String> notes) {
    public SelfTestReport {
        stages = List.copyOf(stages);
        notes = List.copyOf(notes);
    }

    /** Whether everything held. */
    public boolean passed() {
        return stages.stream().allMatch(Stage::passed);
    }

    /**
     * One stage of a self-test.
     *
     * @param name {@code files}, {@code pixels}, {@code ids}, {@code engine}, an output ({@code component.port}), or a
     *     task ({@code match})
     * @param checked how many files, inputs, arrays or answers
     * @param measured how far off it was, for people; empty where that is not a number
     * @param failures one line for everything that did not hold
     */
    public record Stage(String name, int checked, String measured, List<String> failures) {
        public Stage {
            failures = List.copyOf(failures);
        }

        /** Whether it held. */
        public boolean passed() {
            return failures.isEmpty();
        }
    }
}
