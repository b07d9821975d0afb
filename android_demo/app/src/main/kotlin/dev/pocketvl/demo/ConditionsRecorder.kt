package dev.pocketvl.demo

import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.os.BatteryManager
import android.os.Build
import android.os.PowerManager
import dev.pocketvl.core.bench.Conditions
import java.io.File
import kotlin.math.abs

/** Looks at the phone between two answers, at most once a second, for what docs/BENCH.md calls conditions. */
class ConditionsRecorder(private val context: Context) {
    private val samples = ArrayList<Conditions.Sample>()
    private val zones: List<File> = File("/sys/class/thermal").listFiles().orEmpty()
        .filter { it.name.startsWith("thermal_zone") && readOrEmpty(File(it, "type")).contains(PROCESSOR) }
    private var start = 0L
    private var worstStatus: Int? = null
    private var ofBattery = false

    /** Seconds since the first look; 0 before it. */
    val elapsedS: Double get() = if (samples.isEmpty()) 0.0 else (System.nanoTime() - start) / 1e9

    fun look() {
        if (samples.isNotEmpty() && elapsedS - samples.last().atS() < INTERVAL_S) return
        if (samples.isEmpty()) start = System.nanoTime()
        val at = if (samples.isEmpty()) 0.0 else elapsedS
        val battery = context.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED))
        samples.add(Conditions.Sample(at, Processors.mhz(), temperature(battery), power(battery)))
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.Q) {
            val status = context.getSystemService(PowerManager::class.java)?.currentThermalStatus
            worstStatus = listOfNotNull(worstStatus, status).maxOrNull()
        }
    }

    fun conditions(): Conditions {
        val throttled = worstStatus?.let { it > PowerManager.THERMAL_STATUS_NONE }
        val warnings = listOfNotNull(
            "temperatures are the battery's: this phone does not show the processor's to apps".takeIf { ofBattery },
            "Android's thermal status was $worstStatus: the phone was slowed down by its heat".takeIf { throttled == true },
        )
        return Conditions(INTERVAL_S, samples, throttled, warnings)
    }

    private fun temperature(battery: Intent?): Double? {
        val processor = zones.mapNotNull { readOrEmpty(File(it, "temp")).trim().toDoubleOrNull() }.maxOrNull()
        if (processor != null) return processor / 1000
        val tenths = battery?.getIntExtra(BatteryManager.EXTRA_TEMPERATURE, 0)?.takeIf { it != 0 } ?: return null
        ofBattery = true
        return tenths / 10.0
    }

    /** What the battery gives; not known while a charger feeds the phone too. */
    private fun power(battery: Intent?): Double? {
        if (battery == null || battery.getIntExtra(BatteryManager.EXTRA_PLUGGED, 1) != 0) return null
        val microamperes = context.getSystemService(BatteryManager::class.java)?.getIntProperty(BatteryManager.BATTERY_PROPERTY_CURRENT_NOW)
        val millivolts = battery.getIntExtra(BatteryManager.EXTRA_VOLTAGE, 0)
        if (microamperes == null || microamperes == 0 || microamperes == Int.MIN_VALUE || millivolts <= 0) return null
        return abs(microamperes.toDouble()) * 1e-6 * millivolts * 1e-3
    }

    private companion object {
        const val INTERVAL_S = 1.0
        val PROCESSOR = Regex("cpu|soc|pkg|big|mid|little|cluster", RegexOption.IGNORE_CASE)
    }
}
