package dev.pocketvl.core.engine;

import java.util.function.LongSupplier;

/**
 * How many threads a computation kept busy, measured: processor time over elapsed time. An engine that was given four threads
 * and used one shows 1.0.
 *
 * @param cpuNanos processor time of the whole process, in nanoseconds; what else the process did meanwhile is in it
 * @param wallNanos elapsed time, in nanoseconds
 */
public record ThreadUse(long cpuNanos, long wallNanos) {
    /** Measures a computation, by the process's own clock. */
    public static ThreadUse of(Runnable computation) {
        return of(computation, ProcessorTime::nanos);
    }

    /**
     * Measures a computation.
     *
     * @param computation of at least some tens of milliseconds: several runs, after one that warmed up
     * @param cpuClock processor time of the process so far, in nanoseconds
     */
    public static ThreadUse of(Runnable computation, LongSupplier cpuClock) {
        long cpu = cpuClock.getAsLong();
        long wall = System.nanoTime();
        computation.run();
        long elapsed = System.nanoTime() - wall;
        return new ThreadUse(cpuClock.getAsLong() - cpu, elapsed);
    }

    /** Threads that were busy, on average; below the threads in use where the processor had other things to do too. */
    public double busyThreads() {
        return wallNanos > 0 ? (double) cpuNanos / wallNanos : 0;
    }
}
