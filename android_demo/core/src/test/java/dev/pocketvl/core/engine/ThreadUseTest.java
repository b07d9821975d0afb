package dev.pocketvl.core.engine;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.File;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.locks.LockSupport;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class ThreadUseTest {
    @Test
    void waiting_keeps_no_thread_busy_and_computing_takes_processor_time() {
        ThreadUse waiting = ThreadUse.of(() -> LockSupport.parkNanos(200_000_000));
        ThreadUse computing = ThreadUse.of(ThreadUseTest::compute);
        assertTrue(computing.cpuNanos() >= 50_000_000, computing.toString());
        assertTrue(waiting.busyThreads() < computing.busyThreads(), waiting + " " + computing);
    }

    @Test
    void a_clock_that_is_given_is_used() {
        long[] clock = {5};
        assertEquals(100, ThreadUse.of(() -> clock[0] += 100, () -> clock[0]).cpuNanos());
        assertEquals(2, new ThreadUse(200, 100).busyThreads());
        assertEquals(0, new ThreadUse(200, 0).busyThreads());
    }

    @Test
    void threads_and_process_tell_about_the_same() {
        compute();
        long threads = ProcessorTime.ofThreads(new File("/proc/self/task"));
        long process = ProcessorTime.ofProcess(new File("/proc/self/stat"));
        assertTrue(threads > 0 && threads <= process + 100_000_000, threads + " " + process);
    }

    @Test
    void a_name_with_brackets_and_blanks_does_not_shift_the_fields(@TempDir Path folder) throws IOException {
        Path stat = folder.resolve("stat");
        Files.writeString(stat, "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 30 12 0 0 20 0");
        assertEquals(420_000_000, ProcessorTime.ofProcess(stat.toFile()));
        Files.writeString(stat, "7 (a)");
        assertThrows(UnsupportedOperationException.class, () -> ProcessorTime.ofProcess(stat.toFile()));
        assertEquals(0, ProcessorTime.ofThreads(folder.resolve("none").toFile()));
    }

    private static void compute() {
        long begun = ProcessorTime.ofProcess(new File("/proc/self/stat"));
        double value = 1;
        while (ProcessorTime.ofProcess(new File("/proc/self/stat")) - begun < 100_000_000) {
            for (int i = 0; i < 100_000; i++) {
                value = Math.sqrt(value + i);
            }
        }
        assertTrue(value > 0);
    }
}
