package dev.pocketvl.core.engine;

import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;

/** The processor time of this process, from /proc: the same on Android and desktop Linux, and with no Android import. */
public final class ProcessorTime {
    /** The unit of /proc's stat on every Linux: its USER_HZ is 100. */
    private static final long TICK_NANOS = 10_000_000;

    private static final File TASKS = new File("/proc/self/task");
    private static final File STAT = new File("/proc/self/stat");
    /** Where the user's time stands among the fields after the process's name; the kernel's follows. */
    private static final int USER_FIELD = 11;

    private ProcessorTime() {}

    /**
     * Processor time so far, in nanoseconds: that of the threads that live, exact; where the kernel does not tell it, the whole
     * process's in steps of 10 ms.
     *
     * @throws UnsupportedOperationException this system has no /proc
     */
    public static long nanos() {
        long exact = ofThreads(TASKS);
        return exact > 0 ? exact : ofProcess(STAT);
    }

    /** The sum over threads of the first number in their schedstat; 0 where the kernel was built without it. */
    static long ofThreads(File tasks) {
        File[] threads = tasks.listFiles();
        long sum = 0;
        for (File thread : threads == null ? new File[0] : threads) {
            try {
                String[] fields = text(new File(thread, "schedstat")).trim().split(" ");
                sum += Long.parseLong(fields[0]);
            } catch (IOException | NumberFormatException ended) {
                continue; // a thread that ended between the two looks
            }
        }
        return sum;
    }

    /** User's and kernel's time of a process. */
    static long ofProcess(File stat) {
        try {
            String line = text(stat);
            // The name before them is in brackets, and may hold blanks and brackets.
            String[] fields = line.substring(line.lastIndexOf(')') + 2).split(" ");
            return (Long.parseLong(fields[USER_FIELD]) + Long.parseLong(fields[USER_FIELD + 1])) * TICK_NANOS;
        } catch (IOException | RuntimeException error) {
            throw new UnsupportedOperationException(
                    "this system does not tell processor time (no " + stat + "); give another clock", error);
        }
    }

    private static String text(File file) throws IOException {
        return new String(Files.readAllBytes(file.toPath()), StandardCharsets.US_ASCII);
    }
}
