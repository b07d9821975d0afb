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
            isEmulator(),
            Processors.highestMhz(),
        )
    }

    /** Whether this is Android Studio's emulator, or another one that is made of it: then no latency is a phone's. */
    private fun isEmulator(): Boolean = Build.HARDWARE in listOf("goldfish", "ranchu", "vbox86") ||
        Build.FINGERPRINT.startsWith("generic") || Build.FINGERPRINT.contains("emulator") || Build.PRODUCT.startsWith("sdk_")

    /** The largest resident memory of this process so far, in bytes; null where the kernel does not say. */
    fun peakMemoryBytes(): Long? = statusBytes("VmHWM")

    /** Its resident memory now. */
    fun residentMemoryBytes(): Long? = statusBytes("VmRSS")

    private fun statusBytes(key: String): Long? =
        Regex("$key:\\s+(\\d+) kB").find(read("/proc/self/status"))?.let { it.groupValues[1].toLong() * 1024 }

    private fun usableProcessors(): Int {
        val allowed = Regex("Cpus_allowed_list:\\s+(\\S+)").find(read("/proc/self/status"))?.groupValues?.get(1)
        val counted = allowed?.split(',')?.sumOf { range ->
            val ends = range.split('-').mapNotNull { it.toIntOrNull() }
            if (ends.isEmpty()) 0 else ends.last() - ends.first() + 1
        } ?: 0
        val all = Runtime.getRuntime().availableProcessors()
        return if (counted in 1..all) counted else all
    }

    private fun governors(): List<String> = Processors.tell("scaling_governor").distinct().sorted()

    private fun read(path: String): String = readOrEmpty(File(path))
}

/** What the kernel tells of the processors' frequencies, where apps may read it. */
object Processors {
    private val folders: List<File> by lazy {
        File("/sys/devices/system/cpu").listFiles().orEmpty().filter { it.name.matches(Regex("cpu\\d+")) }
            .sortedBy { it.name.removePrefix("cpu").toInt() }
    }

    /** What a file of each says; those that cannot be read are left out. */
    fun tell(file: String): List<String> = folders.map { readOrEmpty(File(it, "cpufreq/$file")).trim() }.filter { it.isNotEmpty() }

    /** Their frequencies now; null where none tells. */
    fun mhz(): List<Double>? = tell("scaling_cur_freq").mapNotNull { it.toDoubleOrNull() }.map { it / 1000 }.ifEmpty { null }

    /** The highest that one may take. */
    fun highestMhz(): Double? = tell("cpuinfo_max_freq").mapNotNull { it.toDoubleOrNull() }.maxOrNull()?.div(1000)
}

/** The text of a file; empty where it is not there, or not for apps. */
internal fun readOrEmpty(file: File): String = try {
    file.readText()
} catch (_: IOException) {
    ""
}

/** What an engine is called where it is installed from. */
fun packageOf(engine: String): String = if (engine == "tflite") "org.tensorflow:tensorflow-lite" else "onnxruntime"
