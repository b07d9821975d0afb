package dev.pocketvl.demo

import android.app.Application
import android.content.ComponentCallbacks2
import android.content.Context
import android.os.Handler
import dev.pocketvl.core.engine.Engine
import java.util.concurrent.Executor

/** What outlives activities: the models, the question that is being asked, the index of photos. */
open class DemoApplication : Application() {
    /** Runs on the main thread. */
    val onMain: Executor by lazy { Handler(mainLooper).let { handler -> Executor { handler.post(it) } } }
    val shelf: BundleShelf by lazy { BundleShelf(this, engines()) }
    val choices: Choices by lazy { Choices(this) }
    val models: ModelThread by lazy { ModelThread(shelf, onMain) }
    val pictures: PictureFiles by lazy { PictureFiles(this) }
    var question = QuestionSession(this)
        protected set
    val photos: PhotoIndex by lazy { PhotoIndex(this) }
    val selfTest: SelfTestSession by lazy { SelfTestSession(this) }
    val bench: BenchSession by lazy { BenchSession(this) }

    /** What runs models; tests put engines of the desktop in their place. */
    protected open fun engines(): List<Engine> = installedEngines()

    override fun onTrimMemory(level: Int) {
        super.onTrimMemory(level)
        if (level >= ComponentCallbacks2.TRIM_MEMORY_BACKGROUND) {
            models.release()
        }
    }
}

/** The app that a screen belongs to. */
val Context.demo: DemoApplication
    get() = applicationContext as DemoApplication
