package dev.pocketvl.demo

import android.app.ActivityManager
import android.content.Context
import android.os.Build
import dev.pocketvl.core.bench.Machine
import java.io.File
import java.io.IOException

/** What this phone is, as docs/BENCH.md asks. */
object DeviceFacts {
    fun machine(context: Context): Machine {
        val architecture = System.getProperty("os.arch").orEmpty()
        val cpuInfo = read("/proc/cpuinfo")
        val isa = Machine.isa(architecture, cpuInfo)
        val memory = ActivityManager.MemoryInfo()
        context.getSystemService(ActivityManager::class.java)?.getMemoryInfo(memory)
        return Machine(
            "${Build.MANUFACTURER} ${Build.MODEL}",
            if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.S) Build.SOC_MODEL else Build.HARDWARE,
            architecture,
            isa,
            Machine.isExactInt8(architecture, isa),
            Runtime.getRuntime().availableProcessors(),
            usableProcessors(),
            memory.totalMem.takeIf { it > 0 },
            "Android ${Build.VERSION.RELEASE}",
            governors(),
        )
    }

    /** The largest resident memory of this process so far, in bytes; null where the kernel does not say. */
    fun peakMemoryBytes(): Long? = Regex("VmHWM:\\s+(\\d+) kB").find(read("/proc/self/status"))?.let { it.groupValues[1].toLong() * 1024 }

    private fun usableProcessors(): Int {
        val allowed = Regex("Cpus_allowed_list:\\s+(\\S+)").find(read("/proc/self/status"))?.groupValues?.get(1)
        val counted = allowed?.split(',')?.sumOf { range ->
            val ends = range.split('-').mapNotNull { it.toIntOrNull() }
            if (ends.isEmpty()) 0 else ends.last() - ends.first() + 1
        } ?: 0
        val all = Runtime.getRuntime().availableProcessors()
        return if (counted in 1..all) counted else all
    }

    private fun governors(): List<String> = File("/sys/devices/system/cpu").listFiles().orEmpty()
        .filter { it.name.matches(Regex("cpu\\d+")) }
        .map { read("$it/cpufreq/scaling_governor").trim() }
        .filter { it.isNotEmpty() }.distinct().sorted()

    private fun read(path: String): String = try {
        File(path).readText()
    } catch (_: IOException) { // not there, or not for apps
        ""
    }
}

/** What an engine is called where it is installed from. */
fun packageOf(engine: String): String = if (engine == "tflite") "org.tensorflow:tensorflow-lite" else "onnxruntime"
