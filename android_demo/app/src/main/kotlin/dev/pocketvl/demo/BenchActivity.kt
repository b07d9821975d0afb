package dev.pocketvl.demo

import android.app.KeyguardManager
import android.content.Intent
import android.os.Bundle
import android.os.PowerManager
import android.view.WindowManager

/**
 * Measures latencies and writes the JSON of docs/BENCH.md into the app's external files. From a computer:
 *
 *     adb shell am start -n dev.pocketvl.demo/.BenchActivity --es variants tflite-int8,tflite-fp32 --es threads 1,2,4 \
 *         --ei runs 30 --ei warmup_runs 1 --es out bench.json [--es bundle tabletop-clip] [--ef duration_s 300] \
 *         [--ez samples true]
 *
 * Beside the result, `bench.json.progress` tells how far it is, or why there will be none ([BenchProgress]).
 */
class BenchActivity : ReportActivity() {
    override val session get() = demo.bench
    override val aboutText = R.string.bench_about
    override val buttonText = R.string.run_bench

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        if (savedInstanceState == null) beginAsTold()
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        setIntent(intent)
        beginAsTold()
    }

    override fun begin(bundle: InstalledBundle) {
        val setup = demo.choices.setup(bundle)
        val plan = BenchPlan(listOf(setup.variant), listOf(setup.options.threads()), RUNS, WARMUP_RUNS, 0f, false)
        session.start(bundle, plan, FILE)
    }

    /** Starts at once if the intent names variants. */
    private fun beginAsTold() {
        val variants = intent.getStringExtra("variants")?.split(',')?.filter { it.isNotBlank() } ?: return
        val threads = intent.getStringExtra("threads")?.split(',')?.mapNotNull { it.trim().toIntOrNull() }?.filter { it > 0 }
        // A name and no path: adb may start this, and it may write nothing but this app's files.
        val out = intent.getStringExtra("out")?.substringAfterLast('/')?.takeIf { it.endsWith(".json") } ?: FILE
        val told = try {
            checkAwake()
            intent.getStringExtra(BUNDLE)?.let(demo.shelf::named) ?: demo.shelf.first { true }
        } catch (error: RuntimeException) {
            session.refuse(messageFor(error), out)
            return
        }
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        val plan = BenchPlan(
            variants,
            threads?.distinct()?.takeIf { it.isNotEmpty() } ?: listOf(demo.choices.threads),
            intent.getIntExtra("runs", RUNS).coerceAtLeast(1),
            intent.getIntExtra("warmup_runs", WARMUP_RUNS).coerceAtLeast(0),
            intent.getFloatExtra("duration_s", 0f).coerceAtLeast(0f),
            intent.getBooleanExtra("samples", false),
        )
        session.start(told, plan, out)
    }

    /** Behind a locked or dark screen Android gives an app the slow processors only. */
    private fun checkAwake() {
        val locked = getSystemService(KeyguardManager::class.java)?.isKeyguardLocked == true
        val dark = getSystemService(PowerManager::class.java)?.isInteractive == false
        if (locked || dark) throw ScreenLockedException(getString(R.string.bench_locked))
    }

    override fun show() {
        showProgress(session.isRunning, session.done, session.count)
        when {
            session.error != null -> showMessage(session.error, R.color.bad)
            session.isRunning -> showMessage(getString(R.string.bench_progress, session.done, session.count), R.color.text_quiet)
            else -> showMessage(
                session.written?.let { getString(R.string.bench_written, it.path) } ?: messageWithoutBundle(), R.color.text_quiet,
            )
        }
        val rows = session.result?.variants().orEmpty().flatMap { (variant, bench) ->
            bench.timings().flatMap { timing ->
                val threads = resources.getQuantityString(R.plurals.thread_count, timing.threads(), timing.threads())
                listOf(ReportRow("$variant, $threads", getString(R.string.bench_header), R.color.text_quiet)) +
                    timing.stages().map { (stage, ms) ->
                        val (median, p10, p90) = listOf(ms.median(), ms.p10(), ms.p90()).map { "%.1f".format(it) }
                        ReportRow(stage, getString(R.string.bench_row, median, p10, p90), R.color.text)
                    }
            }
        }
        showRows(rows)
    }

    private companion object {
        const val RUNS = 30
        const val WARMUP_RUNS = 3
        const val FILE = "bench.json"
    }
}
