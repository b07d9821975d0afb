package dev.pocketvl.demo

import android.os.Process
import android.os.SystemClock
import dev.pocketvl.core.bench.BenchResult
import dev.pocketvl.core.bench.BenchStages
import dev.pocketvl.core.bench.Conditions
import dev.pocketvl.core.bench.SustainedLoad
import dev.pocketvl.core.bundle.VariantChoice
import dev.pocketvl.core.engine.EngineOptions
import dev.pocketvl.core.engine.ProcessorTime
import dev.pocketvl.core.engine.ThreadUse
import dev.pocketvl.core.errors.BundleException
import dev.pocketvl.core.golden.Golden
import dev.pocketvl.core.manifest.Processor
import dev.pocketvl.core.tasks.Model
import dev.pocketvl.core.tasks.StageTimes
import java.io.File

/**
 * What is measured.
 *
 * @property variants in the order in which a round runs them
 * @property threads each of them is run with
 * @property runs that count, of each variant at each number of threads
 * @property warmupRuns before those
 * @property durationS how long each variant then answers without a pause, with most threads; 0: not at all
 * @property samples whether the result holds every counted run
 */
class BenchPlan(
    val variants: List<String>,
    val threads: List<Int>,
    val runs: Int,
    val warmupRuns: Int,
    val durationS: Float,
    val samples: Boolean,
)

/** Times a bundle's variants, in rounds that run each once, and writes what docs/BENCH.md says. */
class BenchSession(private val app: DemoApplication) : Session() {
    var result: BenchResult? = null
        private set
    var written: File? = null
        private set
    var error: String? = null
        private set
    var isRunning = false
        private set
    var done = 0
        private set
    var count = 1
        private set
    private var isFirst = true

    /** Begins, unless a measurement runs; the result goes into a file of the app's external files. */
    fun start(bundle: InstalledBundle, plan: BenchPlan, fileName: String) {
        if (isRunning) return
        isRunning = true
        result = null
        written = null
        error = null
        done = 0
        val pairs = plan.variants.size * plan.threads.size
        count = pairs * (plan.runs + plan.warmupRuns) + plan.variants.size * plan.durationS.toInt()
        changed()
        val progress = BenchProgress(File(app.getExternalFilesDir(null), fileName))
        progress.begin(count)
        val alone = isFirst && plan.variants.size == 1 && plan.threads.size == 1
        isFirst = false
        app.models.submit({ models -> measure(models, bundle, plan, alone, progress) }) { outcome ->
            isRunning = false
            outcome.mapCatching { measured ->
                progress.finish(measured.toJson(), count)
                result = measured
                written = File(app.getExternalFilesDir(null), fileName)
            }.onFailure { refuse(app.messageFor(it), fileName) }
            changed()
        }
    }

    /** Says that there is no result, and why; also to a computer that waits for one. */
    fun refuse(message: String, fileName: String) {
        error = message
        BenchProgress(File(app.getExternalFilesDir(null), fileName)).fail(message)
        changed()
    }

    /** One variant at one number of threads. */
    private class Runner(val variant: String, val threads: Int, val model: Model, val loadMs: Double) {
        val stages = BenchStages()
        var firstMs: Double? = null
        var coldStartMs: Double? = null
        var cpuNanos: Long? = 0
        var wallNanos = 0L

        /** Threads that were busy while it answered; null where the kernel does not tell. */
        val busyThreads: Double? get() = cpuNanos?.let { ThreadUse(it, wallNanos).busyThreads() }
    }

    private fun measure(
        models: ModelThread,
        bundle: InstalledBundle,
        plan: BenchPlan,
        alone: Boolean,
        progress: BenchProgress,
    ): BenchResult {
        models.closeAll()
        val runners = ArrayList<Runner>()
        try {
            plan.variants.forEach { variant -> plan.threads.forEach { runners.add(load(bundle, variant, it)) } }
            val question = Question(bundle)
            val recorder = ConditionsRecorder(app)
            fun step(by: Int) = app.onMain.execute {
                done += by
                progress.tell(done, count)
                changed()
            }
            repeat(plan.warmupRuns + plan.runs) { round ->
                if (round >= plan.warmupRuns) recorder.look()
                runners.forEach { runner ->
                    once(runner, question, round >= plan.warmupRuns)
                    step(1)
                }
            }
            recorder.look()
            val memory = if (alone) DeviceFacts.peakMemoryBytes() to DeviceFacts.residentMemoryBytes() else null to null
            val loaded = runners.filter { plan.durationS > 0 && it.threads == plan.threads.max() }
            val loads = loaded.map { sustain(it, question, plan.durationS.toDouble(), recorder, ::step) }
            val conditions = recorder.conditions()
            return result(bundle, plan, runners, memory, conditions, loads.map { it(conditions) })
        } finally {
            runners.forEach { it.model.close() }
        }
    }

    private fun load(bundle: InstalledBundle, variant: String, threads: Int): Runner {
        val engine = VariantChoice.engineFor(bundle.bundle.manifest(), variant, app.shelf.engines)
        val start = System.nanoTime()
        val model = Model.load(bundle.bundle, variant, engine, EngineOptions(threads, app.choices.delegate))
        return Runner(variant, threads, model, (System.nanoTime() - start) / 1e6)
    }

    private fun once(runner: Runner, question: Question, counts: Boolean) {
        val cpu = processorTime()
        val start = System.nanoTime()
        val (decode, times, total) = answer(runner, question)
        if (runner.firstMs == null) {
            runner.firstMs = total / 1e6
            runner.coldStartMs = (SystemClock.elapsedRealtime() - Process.getStartElapsedRealtime()).toDouble()
        }
        if (!counts) return
        runner.wallNanos += System.nanoTime() - start
        runner.cpuNanos = runner.cpuNanos?.let { sum -> processorTime()?.let { now -> cpu?.let { sum + now - it } } }
        runner.stages.add(decode, times, total)
    }

    /** The process's, in nanoseconds; null where there is no /proc. */
    private fun processorTime(): Long? = try {
        ProcessorTime.nanos()
    } catch (_: UnsupportedOperationException) {
        null
    }

    /** Answers again and again; what is returned sums up once the conditions are known. */
    private fun sustain(
        runner: Runner,
        question: Question,
        durationS: Double,
        recorder: ConditionsRecorder,
        step: (Int) -> Unit,
    ): (Conditions) -> SustainedLoad {
        val answers = SustainedLoad.Answers()
        val beganS = recorder.elapsedS
        var now = 0.0
        while (now < durationS) {
            val (_, _, total) = answer(runner, question)
            answers.add(now, total / 1e6)
            recorder.look()
            val later = recorder.elapsedS - beganS
            if (later.toInt() > now.toInt()) step(minOf(later, durationS).toInt() - now.toInt())
            now = later
        }
        return { conditions -> SustainedLoad.of(runner.variant, runner.threads, durationS, answers, conditions, beganS) }
    }

    /** One answer: nanoseconds of decoding, its stages, nanoseconds of all. */
    private fun answer(runner: Runner, question: Question): Triple<Long, StageTimes, Long> {
        val start = System.nanoTime()
        val picture = Pictures.decode(question.picture)
        val decoded = System.nanoTime()
        val times = if ("match" in runner.model.tasks()) {
            runner.model.match(picture, listOf(question.text)).times()
        } else {
            runner.model.ask(picture, question.text).times()
        }
        return Triple(decoded - start, times, System.nanoTime() - start)
    }

    /** The golden pack's first picture and first text. */
    private class Question(bundle: InstalledBundle) {
        val picture: ByteArray
        val text: String

        init {
            val golden = Golden.read(bundle.bundle)
            val processors = bundle.bundle.manifest().processors()
            if (processors.values.none { it is Processor.Image } || processors.values.none { it is Processor.Text }) {
                throw BundleException("${bundle.name} is an encoder by itself, and this app times what reads pictures and texts")
            }
            val image = golden.inputs().getValue(processors.entries.first { it.value is Processor.Image }.key).first()
            val words = golden.inputs().getValue(processors.entries.first { it.value is Processor.Text }.key).first()
            picture = (image as Golden.GoldenImage).let { input ->
                val content = bundle.bundle.read(input.file())
                ByteArray(content.remaining()).also(content::get)
            }
            text = (words as Golden.GoldenText).text()
        }
    }

    private fun result(
        bundle: InstalledBundle,
        plan: BenchPlan,
        runners: List<Runner>,
        memory: Pair<Long?, Long?>,
        conditions: Conditions,
        sustained: List<SustainedLoad>,
    ): BenchResult {
        val (peak, steady) = memory
        val variants = plan.variants.associateWith { variant ->
            val own = runners.filter { it.variant == variant }
            val timings = own.map {
                val coldStart = it.coldStartMs.takeIf { peak != null || steady != null }
                BenchResult.Timing(
                    it.threads, it.loadMs, it.stages.statistics(plan.samples), it.busyThreads, it.firstMs ?: 0.0, coldStart,
                )
            }
            val notes = own.flatMap { runner -> runner.model.placements().values.flatMap { it.notes() } }.distinct()
            val engine = VariantChoice.engineFor(bundle.bundle.manifest(), variant, app.shelf.engines)
            BenchResult.VariantBench(BenchResult.Software(packageOf(engine.name()), engine.version()), timings, peak, steady, notes)
        }
        return BenchResult(
            BenchResult.Software("pocketvl-demo", app.packageManager.getPackageInfo(app.packageName, 0).versionName ?: "0"),
            DeviceFacts.machine(app),
            bundle.bundle.manifest().name(),
            bundle.bundle.manifestSha256(),
            BenchResult.Settings(plan.runs, plan.warmupRuns, true, null, "golden"),
            variants,
            conditions,
            sustained,
        )
    }
}
