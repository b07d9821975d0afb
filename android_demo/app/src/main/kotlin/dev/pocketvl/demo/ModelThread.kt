package dev.pocketvl.demo

import dev.pocketvl.core.bundle.VariantChoice
import dev.pocketvl.core.tasks.Model
import java.util.concurrent.Executor
import java.util.concurrent.LinkedBlockingQueue
import java.util.concurrent.ThreadPoolExecutor
import java.util.concurrent.TimeUnit

/**
 * The one thread that owns the models: it loads them, asks them and closes them, so that no two questions ever share an
 * interpreter. Work is done in the order in which it was submitted; long work hands in one piece after the other, so that
 * a question never waits for more than one piece.
 */
class ModelThread(private val shelf: BundleShelf, private val onMain: Executor) {
    private val thread = ThreadPoolExecutor(1, 1, 0, TimeUnit.SECONDS, LinkedBlockingQueue()) { Thread(it, "model") }
    private val loaded = HashMap<String, Pair<Setup, Model>>()

    /** Whether nothing runs or waits. */
    val isIdle: Boolean get() = thread.activeCount == 0 && thread.queue.isEmpty()

    /**
     * Runs work on the thread, and hands what it returns or throws to the main thread. Running out of memory is one of the
     * things that it may throw: all models are closed then.
     */
    fun <T> submit(work: (ModelThread) -> T, done: (Result<T>) -> Unit) {
        thread.execute {
            val result = runCatching { work(this) }
            if (result.exceptionOrNull() is OutOfMemoryError) closeAll()
            onMain.execute { done(result) }
        }
    }

    /** A loaded model; only for work on the thread, and only until it ends. */
    fun model(setup: Setup): Model {
        check(Thread.currentThread().name == "model") { "models are used on their own thread" }
        loaded[setup.bundle]?.let { (found, model) -> if (found == setup) return model }
        loaded.remove(setup.bundle)?.second?.close()
        val bundle = shelf.named(setup.bundle).bundle
        val engine = VariantChoice.engineFor(bundle.manifest(), setup.variant, shelf.engines)
        return Model.load(bundle, setup.variant, engine, setup.options).also { loaded[setup.bundle] = setup to it }
    }

    /** Closes every model; only for work on the thread. */
    fun closeAll() {
        loaded.values.forEach { (_, model) -> model.close() }
        loaded.clear()
    }

    /** Gives memory back, after what is running now; models are loaded again when they are asked. */
    fun release() = thread.execute { closeAll() }
}
