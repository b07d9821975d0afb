package dev.pocketvl.demo

import android.app.KeyguardManager
import android.content.Intent
import android.os.BatteryManager
import android.os.PowerManager
import com.google.gson.JsonObject
import com.google.gson.JsonParser
import com.networknt.schema.InputFormat
import com.networknt.schema.JsonSchemaFactory
import com.networknt.schema.SpecVersion
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.shadows.ShadowBuild
import java.io.File
import java.nio.file.Path
import java.nio.file.Paths

/** The bench as adb starts it, with real engines; exporter/pocketvl/devices/adb.py is the other end of it. */
@RunWith(RobolectricTestRunner::class)
class BenchTest {
    private val app get() = RuntimeEnvironment.getApplication() as DesktopApplication
    private val matching: Path = DesktopApplication.toys.resolve("format-2.0")

    @Before
    fun installBundle() = app.install(matching)

    private fun schemaMessages(text: String): String {
        val schema = DesktopApplication.toys.resolve(Paths.get("..", "..", "docs", "bench.schema.json")).toFile().readText()
        val checked = JsonSchemaFactory.getInstance(SpecVersion.VersionFlag.V202012).getSchema(schema)
        return checked.validate(text, InputFormat.JSON).toString()
    }

    @Test
    fun aBenchThatAdbStartsWritesItsFile() {
        val intent = Intent(app, BenchActivity::class.java).putExtra("variants", "onnx-fp32").putExtra("threads", "1,2")
            .putExtra("runs", 3).putExtra("warmup_runs", 1).putExtra("out", "../../elsewhere/mine.json")
            .putExtra("bundle", matching.fileName.toString()).putExtra("duration_s", 1.2f).putExtra("samples", true)
        val screen = Robolectric.buildActivity(BenchActivity::class.java, intent).setup().get()
        val progress = File(app.getExternalFilesDir(null), "mine.json.progress")
        assertEquals(9, JsonParser.parseString(progress.readText()).asJsonObject.get("count").asInt)
        await("the result") { !app.bench.isRunning }
        assertNull(app.bench.error)
        val written = File(app.getExternalFilesDir(null), "mine.json")
        assertEquals(written, app.bench.written)
        val result = JsonParser.parseString(written.readText()).asJsonObject
        assertEquals("pocketvl-bench", result.get("format").asString)
        val timings = result.getAsJsonObject("variants").getAsJsonObject("onnx-fp32").getAsJsonArray("timings")
        assertEquals(listOf(1, 2), timings.map { it.asJsonObject.get("threads").asInt })
        val stages = timings[0].asJsonObject.getAsJsonObject("stages")
        assertEquals(setOf("decode", "preprocess", "image", "tokens", "text", "post", "total"), stages.keySet())
        assertEquals(3, stages.getAsJsonObject("total").get("n").asInt)
        assertEquals(3, stages.getAsJsonObject("total").getAsJsonArray("samples").size())
        val known = (stages.keySet() - "total").sumOf { stages.getAsJsonObject(it).getAsJsonArray("samples")[0].asDouble }
        assertTrue("$stages", known <= stages.getAsJsonObject("total").getAsJsonArray("samples")[0].asDouble)
        assertTrue(timings[0].asJsonObject.get("busy_threads").asDouble > 0)
        assertTrue(timings[0].asJsonObject.get("first_ms").asDouble > 0)
        val loads = result.getAsJsonArray("sustained").map { it.asJsonObject }
        assertEquals(listOf(2), loads.map { it.get("threads").asInt })
        assertTrue(loads.all { load -> load.getAsJsonArray("windows").sumOf { it.asJsonObject.get("n").asInt } > 1 })
        assertEquals("[]", schemaMessages(written.readText()))
        val last = JsonParser.parseString(progress.readText()).asJsonObject
        assertEquals(written.path, last.get("written").asString)
        assertEquals(last.get("count"), last.get("done"))
        assertTrue(screen.text(R.id.message).endsWith("mine.json"))
    }

    private fun bench(change: Intent.() -> Unit): JsonObject {
        val intent = Intent(app, BenchActivity::class.java).putExtra("variants", "onnx-fp32").putExtra("runs", 1).apply(change)
        Robolectric.buildActivity(BenchActivity::class.java, intent).setup().get()
        await("an end") { !app.bench.isRunning }
        return JsonParser.parseString(File(app.getExternalFilesDir(null), "bench.json.progress").readText()).asJsonObject
    }

    @Test
    fun aBenchThatCannotBeIsRefusedWhereTheComputerLooks() {
        assertTrue(bench { putExtra("bundle", "elsewhere") }.get("error").asString.contains("has no bundle elsewhere"))
        assertTrue(bench { putExtra("variants", "onnx-int2") }.get("error").asString.contains("onnx-int2"))
        assertFalse(bench { }.has("error"))
        shadowOf(app.getSystemService(KeyguardManager::class.java)).setKeyguardLocked(true)
        assertEquals(app.getString(R.string.bench_locked), bench { }.get("error").asString)
        shadowOf(app.getSystemService(KeyguardManager::class.java)).setKeyguardLocked(false)
        shadowOf(app.getSystemService(PowerManager::class.java)).turnScreenOn(false)
        assertEquals(app.getString(R.string.bench_locked), bench { }.get("error").asString)
        assertFalse(File(app.getExternalFilesDir(null), "bench.json").exists())
    }

    @Test
    fun whatAndroidTellsOfItsConditionsIsWrittenDown() {
        val battery = Intent(Intent.ACTION_BATTERY_CHANGED).putExtra(BatteryManager.EXTRA_TEMPERATURE, 312)
            .putExtra(BatteryManager.EXTRA_PLUGGED, 0).putExtra(BatteryManager.EXTRA_VOLTAGE, 4000)
        @Suppress("DEPRECATION")
        app.sendStickyBroadcast(battery)
        shadowOf(app.getSystemService(BatteryManager::class.java))
            .setIntProperty(BatteryManager.BATTERY_PROPERTY_CURRENT_NOW, -500_000)
        val power = app.getSystemService(PowerManager::class.java)
        shadowOf(power).setCurrentThermalStatus(PowerManager.THERMAL_STATUS_MODERATE)
        val recorder = ConditionsRecorder(app)
        recorder.look()
        shadowOf(power).setCurrentThermalStatus(PowerManager.THERMAL_STATUS_NONE)
        recorder.look() // too soon
        val conditions = recorder.conditions()
        assertEquals(1, conditions.samples().size)
        assertEquals(2.0, conditions.samples()[0].powerW()!!, 1e-9)
        assertEquals(true, conditions.throttled())
        assertTrue("${conditions.warnings()}", conditions.warnings().any { "thermal status was 2" in it })
    }

    @Test
    fun anEmulatorIsToldFromAPhone() {
        ShadowBuild.setHardware("ranchu")
        assertTrue(DeviceFacts.machine(app).emulated())
        ShadowBuild.setHardware("tensor")
        ShadowBuild.setFingerprint("google/shiba/shiba:15/AP3A/1:user/release-keys")
        assertFalse(DeviceFacts.machine(app).emulated())
    }
}
