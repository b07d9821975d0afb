package dev.pocketvl.demo

/** Does this phone give the right answers? Stage by stage. */
class SelfTestActivity : ReportActivity() {
    override val session get() = demo.selfTest
    override val aboutText = R.string.self_test_about
    override val buttonText = R.string.run_self_test

    override fun begin(bundle: InstalledBundle) = session.start(bundle)

    override fun show() {
        showProgress(session.isRunning, session.stages.size, session.count)
        val report = session.report
        when {
            session.error != null -> showMessage(session.error, R.color.bad)
            report != null && report.passed() -> {
                showMessage((listOf(getString(R.string.self_test_passed)) + report.notes()).joinToString("\n"), R.color.good)
            }
            report != null -> showMessage(getString(R.string.self_test_failed), R.color.bad)
            else -> showMessage(messageWithoutBundle(), R.color.bad)
        }
        showRows(
            session.stages.map { stage ->
                val passed = stage.passed()
                ReportRow(
                    getString(R.string.stage_checked, stage.name(), stage.checked()),
                    getString(if (passed) R.string.passed else R.string.failed),
                    if (passed) R.color.good else R.color.bad,
                    (listOf(stage.measured()).filter { it.isNotEmpty() } + stage.failures()).joinToString("\n"),
                )
            },
        )
    }
}
