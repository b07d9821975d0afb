package dev.pocketvl.demo

import android.os.Process
import java.io.File
import java.io.IOException

/**
 * The time that processors have spent on this app, the main thread left out: over the time that passed, it says how many
 * threads really worked.
 */
object CpuClock {
    /** Nanoseconds. */
    fun now(): Long = fromScheduler() ?: Process.getElapsedCpuTime() * 1_000_000

    private fun fromScheduler(): Long? = try {
        val main = Process.myPid().toString()
        val threads = File("/proc/self/task").listFiles().orEmpty().filter { it.name != main }
        threads.mapNotNull(::spent).sum().takeIf { threads.isNotEmpty() && it > 0 }
    } catch (_: SecurityException) {
        null
    }

    private fun spent(thread: File): Long? = try {
        File(thread, "schedstat").readText().substringBefore(' ').toLongOrNull()
    } catch (_: IOException) { // it has ended
        null
    }
}
