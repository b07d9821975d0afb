package dev.pocketvl.demo

import dev.pocketvl.core.bundle.VariantChoice
import dev.pocketvl.core.golden.SelfTest
import dev.pocketvl.core.golden.SelfTestReport

/** A self-test by a bundle's golden pack, on the model's thread. */
class SelfTestSession(private val app: DemoApplication) : Session() {
    var stages: List<SelfTestReport.Stage> = emptyList()
        private set
    var report: SelfTestReport? = null
        private set
    var error: String? = null
        private set
    var isRunning = false
        private set

    /** How many stages there are at most. */
    var count = 1
        private set

    /** Begins, unless one runs. */
    fun start(bundle: InstalledBundle) {
        if (isRunning) return
        isRunning = true
        stages = emptyList()
        report = null
        error = null
        changed()
        app.models.submit({ run(bundle, app.choices.setup(bundle)) }) { result ->
            isRunning = false
            result.onSuccess { report = it }.onFailure { error = app.messageFor(it) }
            changed()
        }
    }

    private fun run(bundle: InstalledBundle, setup: Setup): SelfTestReport {
        val engine = VariantChoice.engineFor(bundle.bundle.manifest(), setup.variant, app.shelf.engines)
        return SelfTest.run(bundle.bundle, setup.variant, engine, setup.options, Pictures) { done, count, stage ->
            app.onMain.execute { add(done, count, stage) }
        }
    }

    private fun add(done: Int, count: Int, stage: SelfTestReport.Stage) {
        stages = stages.take(done - 1) + stage
        this.count = count
        changed()
    }
}
