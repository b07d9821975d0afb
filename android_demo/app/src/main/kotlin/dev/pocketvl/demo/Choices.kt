package dev.pocketvl.demo

import android.content.Context
import dev.pocketvl.core.engine.EngineOptions

/**
 * How a bundle is run.
 *
 * @property bundle by its folder's name
 */
data class Setup(val bundle: String, val variant: String, val options: EngineOptions)

/** What the user has chosen, kept between starts. */
class Choices(private val context: Context) {
    private val stored = context.getSharedPreferences("choices", Context.MODE_PRIVATE)

    /** Threads of one inference; 2 where nobody chose, which is right for phones with two quick cores. */
    var threads: Int
        get() = stored.getInt("threads", minOf(2, mostThreads)).coerceIn(1, mostThreads)
        set(value) = stored.edit().putInt("threads", value).apply()

    var delegate: EngineOptions.Delegate
        get() = stored.getString("delegate", null)?.let { name -> EngineOptions.Delegate.entries.firstOrNull { it.name == name } }
            ?: EngineOptions.Delegate.CPU
        set(value) = stored.edit().putString("delegate", value.name).apply()

    /** The variant of a bundle. */
    fun variant(bundle: InstalledBundle): String = stored.getString("variant.${bundle.name}", null)?.takeIf { it in bundle.variants }
        ?: bundle.preferredVariant(context.demo.shelf.engines)

    fun setVariant(bundle: InstalledBundle, variant: String) = stored.edit().putString("variant.${bundle.name}", variant).apply()

    /** Everything that a bundle is run with. */
    fun setup(bundle: InstalledBundle) = Setup(bundle.name, variant(bundle), EngineOptions(threads, delegate))

    companion object {
        /** As many as the phone has processors. */
        val mostThreads: Int get() = Runtime.getRuntime().availableProcessors().coerceAtMost(8)
    }
}
