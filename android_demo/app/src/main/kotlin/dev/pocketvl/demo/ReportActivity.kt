package dev.pocketvl.demo

import android.os.Bundle
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.ProgressBar
import android.widget.Spinner
import android.widget.TextView

/** A row of a report. */
class ReportRow(val label: String, val value: String, val color: Int, val detail: String = "")

/** A screen that runs something long and reports it: what it is about, what it runs with, a button, progress, rows, which `show` fills in. */
abstract class ReportActivity : SessionActivity() {
    protected abstract val aboutText: Int
    protected abstract val buttonText: Int

    /** The bundle that is chosen; null: the app has none. */
    protected var bundle: InstalledBundle? = null
        private set
    private val setup by lazy { SetupPanel(view(R.id.root)) { } }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.list_screen)
        drawEdgeToEdge(view(R.id.root), view(R.id.scroll))
        view<View>(R.id.back).setOnClickListener { finish() }
        view<TextView>(R.id.title).text = title
        view<TextView>(R.id.about).setText(aboutText)
        view<Button>(R.id.run).apply {
            setText(buttonText)
            setOnClickListener { bundle?.let(::begin) }
        }
        val bundles = demo.shelf.bundles()
        val chosen = savedInstanceState?.getString(BUNDLE) ?: intent.getStringExtra(BUNDLE)
        bundle = bundles.firstOrNull { it.name == chosen } ?: bundles.firstOrNull()
        view<View>(R.id.bundle_row).visibility = if (bundles.size > 1) View.VISIBLE else View.GONE
        bundle?.let { first ->
            view<Spinner>(R.id.bundle).offer(bundles, first, { it.name }) {
                bundle = it
                setup.show(it)
            }
        }
        setup.show(bundle)
    }

    override fun onSaveInstanceState(outState: Bundle) {
        super.onSaveInstanceState(outState)
        outState.putString(BUNDLE, bundle?.name)
    }

    /** Starts the work. */
    protected abstract fun begin(bundle: InstalledBundle)

    protected fun showProgress(isRunning: Boolean, done: Int, count: Int) {
        view<View>(R.id.run).isEnabled = !isRunning && !bundle?.variants.isNullOrEmpty()
        view<ProgressBar>(R.id.progress).apply {
            visibility = if (isRunning) View.VISIBLE else View.GONE
            max = count
            progress = done
        }
    }

    protected fun showMessage(text: String?, color: Int) {
        view<TextView>(R.id.message).apply {
            this.text = text
            setTextColor(getColor(color))
            visibility = if (text.isNullOrEmpty()) View.GONE else View.VISIBLE
        }
    }

    protected fun showRows(rows: List<ReportRow>) {
        view<View>(R.id.rows).visibility = if (rows.isEmpty()) View.GONE else View.VISIBLE
        view<ViewGroup>(R.id.rows).fill(R.layout.report_row, rows.indices) { view, i ->
            view.view<TextView>(R.id.label).text = rows[i].label
            view.view<TextView>(R.id.value).apply {
                text = rows[i].value
                setTextColor(getColor(rows[i].color))
            }
            view.view<TextView>(R.id.detail).apply {
                text = rows[i].detail
                visibility = if (rows[i].detail.isEmpty()) View.GONE else View.VISIBLE
            }
        }
    }

    /** Says why nothing can be run. */
    protected fun messageWithoutBundle(): String? = if (bundle != null) null else try {
        demo.shelf.first { true }
        null
    } catch (error: RuntimeException) {
        messageFor(error)
    }

    companion object {
        /** Extra: the name of a bundle. */
        const val BUNDLE = "bundle"
    }
}
