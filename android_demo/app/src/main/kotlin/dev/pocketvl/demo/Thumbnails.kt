package dev.pocketvl.demo

import android.graphics.Bitmap
import android.util.LruCache
import android.widget.ImageView
import java.util.concurrent.Executor
import java.util.concurrent.Executors

/** Small pictures of photos, loaded beside the main thread and kept for a while. */
class Thumbnails(private val library: PhotoLibrary, private val onMain: Executor) : AutoCloseable {
    private val loaders = Executors.newFixedThreadPool(2) { Thread(it, "thumbnails") }
    private val kept = LruCache<Long, Bitmap>(KEPT)

    /** Shows a photo as soon as it is loaded, unless the view shows another by then. */
    fun show(id: Long, view: ImageView) {
        view.tag = id
        view.setImageBitmap(kept[id])
        if (kept[id] != null) return
        loaders.execute {
            val bitmap = library.thumbnail(id, EDGE) ?: return@execute
            onMain.execute {
                kept.put(id, bitmap)
                if (view.tag == id) view.setImageBitmap(bitmap)
            }
        }
    }

    override fun close() {
        loaders.shutdownNow()
    }

    private companion object {
        const val KEPT = 100
        const val EDGE = 320
    }
}
