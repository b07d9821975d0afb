package dev.pocketvl.demo

import dev.pocketvl.core.bench.BenchResult
import dev.pocketvl.core.bench.BenchStages
import dev.pocketvl.core.bundle.VariantChoice
import dev.pocketvl.core.engine.EngineOptions
import dev.pocketvl.core.golden.Golden
import dev.pocketvl.core.manifest.Processor
import dev.pocketvl.core.tasks.Model
import java.io.File

/**
 * What is measured.
 *
 * @property variants in the order in which a round runs them
 * @property threads each of them is run with
 * @property runs that count, of each variant at each number of threads
 * @property warmupRuns before those
 */
class BenchPlan(val variants: List<String>, val threads: List<Int>, val runs: Int, val warmupRuns: Int)

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
        count = plan.variants.size * plan.threads.size * (plan.runs + plan.warmupRuns)
        changed()
        val alone = isFirst && plan.variants.size == 1 && plan.threads.size == 1
        isFirst = false
        app.models.submit({ models -> measure(models, bundle, plan, alone) to File(app.getExternalFilesDir(null), fileName) }) { outcome ->
            isRunning = false
            outcome.mapCatching { (measured, file) ->
                file.writeText(measured.toJson())
                result = measured
                written = file
            }.onFailure { error = app.messageFor(it) }
            changed()
        }
    }

    /** One variant at one number of threads. */
    private class Runner(val variant: String, val threads: Int, val model: Model, val loadMs: Double) {
        val stages = BenchStages()
    }

    private fun measure(models: ModelThread, bundle: InstalledBundle, plan: BenchPlan, alone: Boolean): BenchResult {
        models.closeAll()
        val runners = ArrayList<Runner>()
        try {
            plan.variants.forEach { variant -> plan.threads.forEach { runners.add(load(bundle, variant, it)) } }
            val question = Question(bundle)
            repeat(plan.warmupRuns) { runners.forEach { runner -> once(runner, question, counts = false) } }
            repeat(plan.runs) { runners.forEach { runner -> once(runner, question, counts = true) } }
            return result(bundle, plan, runners, if (alone) DeviceFacts.peakMemoryBytes() else null)
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
        val start = System.nanoTime()
        val picture = Pictures.decode(question.picture)
        val decoded = System.nanoTime()
        val times = if ("match" in runner.model.tasks()) {
            runner.model.match(picture, listOf(question.text)).times()
        } else {
            runner.model.ask(picture, question.text).times()
        }
        val end = System.nanoTime()
        if (counts) runner.stages.add(decoded - start, times, end - start)
        app.onMain.execute {
            done++
            changed()
        }
    }

    /** The golden pack's first picture and first text. */
    private class Question(bundle: InstalledBundle) {
        val picture: ByteArray
        val text: String

        init {
            val golden = Golden.read(bundle.bundle)
            val processors = bundle.bundle.manifest().processors()
            val image = golden.inputs().getValue(processors.entries.first { it.value is Processor.Image }.key).first()
            val words = golden.inputs().getValue(processors.entries.first { it.value is Processor.Text }.key).first()
            picture = (image as Golden.GoldenImage).let { input ->
                val content = bundle.bundle.read(input.file())
                ByteArray(content.remaining()).also(content::get)
            }
            text = (words as Golden.GoldenText).text()
        }
    }

    private fun result(bundle: InstalledBundle, plan: BenchPlan, runners: List<Runner>, peak: Long?): BenchResult {
        val variants = plan.variants.associateWith { variant ->
            val own = runners.filter { it.variant == variant }
            val timings = own.map { BenchResult.Timing(it.threads, it.loadMs, it.stages.statistics()) }
            val notes = own.flatMap { runner -> runner.model.placements().values.flatMap { it.notes() } }.distinct()
            val engine = VariantChoice.engineFor(bundle.bundle.manifest(), variant, app.shelf.engines)
            BenchResult.VariantBench(BenchResult.Software(packageOf(engine.name()), engine.version()), timings, peak, notes)
        }
        return BenchResult(
            BenchResult.Software("pocketvl-demo", app.packageManager.getPackageInfo(app.packageName, 0).versionName ?: "0"),
            DeviceFacts.machine(app),
            bundle.bundle.manifest().name(),
            bundle.bundle.manifestSha256(),
            BenchResult.Settings(plan.runs, plan.warmupRuns, true, null, "golden"),
            variants,
        )
    }
}
