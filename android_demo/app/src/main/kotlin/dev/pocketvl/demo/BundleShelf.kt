package dev.pocketvl.demo

import android.content.Context
import dev.pocketvl.core.bundle.Bundle
import dev.pocketvl.core.bundle.BundleSource
import dev.pocketvl.core.bundle.FolderSource
import dev.pocketvl.core.bundle.VariantChoice
import dev.pocketvl.core.engine.Engine
import dev.pocketvl.core.errors.BundleException
import dev.pocketvl.core.errors.PocketVLException
import dev.pocketvl.core.manifest.Task
import dev.pocketvl.core.tasks.TaskSupport
import java.io.File

/**
 * A bundle that the app can run.
 *
 * @property name of its folder
 * @property variants that this app's engines can run and whose files are there
 */
class InstalledBundle(val name: String, val bundle: Bundle, val source: BundleSource, val variants: List<String>) {
    /** Whether it compares pictures with texts. */
    val matches: Boolean get() = bundle.manifest().tasks()["match"] is Task.Contrastive && "match" in runnable

    /** Whether it answers questions. */
    val answers: Boolean get() = bundle.manifest().tasks()["ask"] is Task.Labels && "ask" in runnable

    private val runnable: Set<String> = TaskSupport.runnable(bundle.manifest()).keys
}

/**
 * The bundles of the app: those in the APK, under `assets/bundles`, and those that a developer has copied into the folder
 * `bundles` of the app's external files, which come first.
 */
class BundleShelf(private val context: Context, val engines: List<Engine>) {
    private val opened: List<Result<InstalledBundle>> by lazy { folders().map { (name, source) -> runCatching { open(name, source) } } }

    /** All that can be opened. */
    fun bundles(): List<InstalledBundle> = opened.mapNotNull { it.getOrNull() }

    /**
     * The first bundle that can do something.
     *
     * @throws BundleException none can; where one is damaged, says so
     */
    fun first(can: (InstalledBundle) -> Boolean): InstalledBundle = bundles().firstOrNull(can)
        ?: throw opened.firstNotNullOfOrNull { it.exceptionOrNull() } ?: NoBundleException(
            context.getString(if (opened.isEmpty()) R.string.error_no_bundles else R.string.error_no_task),
        )

    /** @throws BundleException there is none of that name */
    fun named(name: String): InstalledBundle = bundles().firstOrNull { it.name == name }
        ?: throw opened.firstNotNullOfOrNull { it.exceptionOrNull() }
            ?: BundleException("this app has no bundle $name; it has ${bundles().joinToString { it.name }}")

    private fun open(name: String, source: BundleSource): InstalledBundle {
        val bundle = Bundle.open(source)
        val manifest = bundle.manifest()
        val there = VariantChoice.runnable(manifest, engines).filter { variant ->
            manifest.variant(variant).files().values.all { source.exists(it.file()) }
        }
        return InstalledBundle(name, bundle, source, there)
    }

    private fun folders(): List<Pair<String, BundleSource>> {
        val copied = File(context.getExternalFilesDir(null), FOLDER).listFiles { file -> file.isDirectory }.orEmpty()
        val shipped = context.assets.list(FOLDER).orEmpty()
        return copied.sorted().map { it.name to FolderSource(it.toPath()) } +
            shipped.sorted().map { it to AssetSource(context.assets, "$FOLDER/$it") }
    }

    private companion object {
        const val FOLDER = "bundles"
    }
}

/** The app holds no bundle for what is asked; the message is for users. */
class NoBundleException(message: String) : RuntimeException(message)

/** Which variant is taken where the user has chosen none: as [VariantChoice.preferred] does, of those that are there. */
fun InstalledBundle.preferredVariant(engines: List<Engine>): String {
    val preferred = try {
        VariantChoice.preferred(bundle.manifest(), engines)
    } catch (error: PocketVLException) {
        variants.firstOrNull() ?: throw error
    }
    return if (preferred in variants) preferred else variants.firstOrNull()
        ?: throw BundleException("$name has no variant whose files are in this app; build it again")
}
