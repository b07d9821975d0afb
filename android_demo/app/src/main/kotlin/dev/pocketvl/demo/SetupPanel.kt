package dev.pocketvl.demo

import android.content.Context
import android.view.View
import android.widget.AdapterView
import android.widget.ArrayAdapter
import android.widget.Spinner
import android.widget.TextView
import dev.pocketvl.core.engine.EngineOptions.Delegate
import dev.pocketvl.core.manifest.Variant
import dev.pocketvl.core.tasks.Model

/** The choice of variant, threads and delegate, wherever a screen shows it. */
class SetupPanel(private val root: View, private val onChoice: () -> Unit) {
    private val context = root.context
    private val choices = context.demo.choices
    private val variant: Spinner = root.view(R.id.variant)
    private val threads: Spinner = root.view(R.id.threads)
    private val delegate: Spinner = root.view(R.id.delegate)

    /** Shows what a bundle can be run with; null: nothing can be chosen. */
    fun show(chosen: InstalledBundle?) {
        val bundle = chosen?.takeIf { it.variants.isNotEmpty() }
        listOf(variant, threads, delegate).forEach { it.isEnabled = bundle != null }
        if (bundle == null) {
            root.view<TextView>(R.id.model_size).text = ""
            return
        }
        variant.offer(bundle.variants, choices.variant(bundle), { nameOf(bundle, it) }) {
            choices.setVariant(bundle, it)
            describe(bundle)
            onChoice()
        }
        threads.offer((1..Choices.mostThreads).toList(), choices.threads, ::threadCount) {
            choices.threads = it
            onChoice()
        }
        delegate.offer(Delegate.entries, choices.delegate, context::nameOf) {
            choices.delegate = it
            onChoice()
        }
        describe(bundle)
    }

    private fun nameOf(bundle: InstalledBundle, variant: String) =
        if (bundle.bundle.manifest().variant(variant).status() == Variant.Status.ACCEPTED) variant
        else context.getString(R.string.experimental, variant)

    private fun threadCount(count: Int) = context.resources.getQuantityString(R.plurals.thread_count, count, count)

    private fun describe(bundle: InstalledBundle) {
        val chosen = choices.variant(bundle)
        val engine = bundle.bundle.manifest().variant(chosen).engine().name.lowercase()
        val version = context.demo.shelf.engines.firstOrNull { it.name() == engine }?.let { "${it.name()} ${it.version()}" }
        root.view<TextView>(R.id.model_size).text = context.getString(
            R.string.model_size, bundle.name, "%.1f".format(bundle.bundle.sizeBytes(chosen) / 1e6), version.orEmpty(),
        )
    }
}

/** Offers items to choose from; [choose] is told of the user's choices only. */
fun <T> Spinner.offer(items: List<T>, chosen: T, name: (T) -> String, choose: (T) -> Unit) {
    onItemSelectedListener = null
    adapter = ArrayAdapter(context, android.R.layout.simple_spinner_item, items.map(name)).apply {
        setDropDownViewResource(android.R.layout.simple_spinner_dropdown_item)
    }
    setSelection(items.indexOf(chosen).coerceAtLeast(0), false)
    onItemSelectedListener = object : AdapterView.OnItemSelectedListener {
        private var last = selectedItemPosition

        override fun onItemSelected(parent: AdapterView<*>?, view: View?, position: Int, id: Long) {
            if (position == last) return // told once of what was set above
            last = position
            choose(items[position])
        }

        override fun onNothingSelected(parent: AdapterView<*>?) = Unit
    }
}

/** A delegate, for people. */
fun Context.nameOf(delegate: Delegate): String = getString(
    when (delegate) {
        Delegate.NONE -> R.string.delegate_none
        Delegate.CPU -> R.string.delegate_cpu
        Delegate.GPU -> R.string.delegate_gpu
        Delegate.NNAPI -> R.string.delegate_nnapi
    },
)

/** What took each component of a model, and why not what was asked for; one a line. */
fun Context.describePlacements(model: Model): String = model.placements().entries.joinToString("\n") { (component, placement) ->
    val taken = getString(R.string.placement, component, nameOf(placement.delegate()))
    (listOf(taken) + placement.notes()).joinToString("\n")
}
