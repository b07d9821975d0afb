package dev.pocketvl.demo

import android.content.Context
import dev.pocketvl.core.bundle.Bundle
import dev.pocketvl.core.bundle.BundleSource
import dev.pocketvl.core.bundle.VariantChoice
import dev.pocketvl.core.engine.Engine
import dev.pocketvl.core.engine.EngineOptions
import dev.pocketvl.core.tasks.Model

// The sample of docs/ANDROID.md, to the letter: what is compiled and run here is what stands there.

/** Which of some labels fits a picture best; not on the main thread. */
fun bestLabel(bundleFiles: BundleSource, engines: List<Engine>, file: ByteArray, labels: List<String>): String {
    val bundle = Bundle.open(bundleFiles)
    val variant = VariantChoice.preferred(bundle.manifest(), engines)
    val engine = VariantChoice.engineFor(bundle.manifest(), variant, engines)
    val options = EngineOptions(2, EngineOptions.Delegate.CPU)
    return Model.load(bundle, variant, engine, options).use { model ->
        val match = model.match(Pictures.decode(file), labels)
        match.ranked().first().text()
    }
}

fun bestLabelInAssets(context: Context, file: ByteArray) =
    bestLabel(AssetSource(context.assets, "bundles/tabletop-clip"), installedEngines(), file, listOf("a red circle", "a blue square"))
