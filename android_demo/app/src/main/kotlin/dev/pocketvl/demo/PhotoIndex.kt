package dev.pocketvl.demo

import dev.pocketvl.core.errors.InputException
import dev.pocketvl.core.errors.PocketVLException
import dev.pocketvl.core.errors.StorageException
import dev.pocketvl.core.gallery.Gallery
import dev.pocketvl.core.gallery.Hit
import dev.pocketvl.core.manifest.Task
import java.io.File
import java.io.IOException
import java.util.concurrent.Executors

/**
 * Embeddings of the phone's photos, kept in a file. Indexing goes on while the app lives, whatever screen is shown: one
 * photo after the other on the model's thread, so that questions come in between; only photos that are new or changed,
 * and those that are gone are taken out.
 */
class PhotoIndex(private val app: DemoApplication) : Session() {
    val library = PhotoLibrary(app)
    private val disk = Executors.newSingleThreadExecutor { Thread(it, "photos") }
    private val waiting = ArrayDeque<Photo>()
    private var gallery: Gallery? = null
    private var began = 0L
    private var readSinceBegan = 0

    /** How many photos there are, or null: not yet counted. */
    var total: Int? = null
        private set

    /** How many of them can be searched. */
    var indexed = 0
        private set

    /** How many could not be read. */
    var failed = 0
        private set
    var isPaused = false
        private set
    var isRunning = false
        private set
    var error: String? = null
        private set
    var hits: List<Hit>? = null
        private set

    /** Photos a second since indexing went on; 0 before the first. */
    val rate: Double get() = if (readSinceBegan == 0) 0.0 else readSinceBegan / ((System.nanoTime() - began) / 1e9)

    /** Looks for new photos and indexes them, unless that goes on already or the user has paused it. */
    fun start() {
        if (isRunning || isPaused || !library.mayRead) return
        val opened = prepared() ?: return
        isRunning = true
        error = null
        changed()
        disk.execute {
            val result = runCatching { library.photos().also { dropGone(opened, it) } }
            app.onMain.execute {
                result.onSuccess { photos -> begin(opened, photos) }.onFailure { stop(app.messageFor(it)) }
            }
        }
    }

    /** Stops after the photo that is being read. */
    fun pause() {
        isPaused = true
        isRunning = false
        changed()
    }

    /** Goes on. */
    fun resume() {
        isPaused = false
        start()
    }

    /** Finds the photos that fit a text best. */
    fun search(text: String) {
        val opened = prepared() ?: return
        app.models.submit({ models ->
            opened.search(models.model(app.choices.setup(bundle())).embedText(text), MOST_HITS)
        }) { result ->
            result.onSuccess { hits = it }.onFailure { error = app.messageFor(it) }
            changed()
        }
    }

    /** Forgets what was found. */
    fun clearHits() {
        hits = null
        changed()
    }

    private fun bundle() = app.shelf.first { it.matches }

    /** The gallery; null where there can be none, and [error] says why. */
    private fun prepared(): Gallery? = gallery ?: try {
        open(bundle()).also { gallery = it }
    } catch (failure: RuntimeException) {
        stop(app.messageFor(failure))
        null
    }

    private fun open(bundle: InstalledBundle): Gallery {
        val manifest = bundle.bundle.manifest()
        val embedding = manifest.output((manifest.tasks().getValue("match") as Task.Contrastive).first())
        val space = requireNotNull(embedding.space())
        val file = File(app.filesDir, "photos-${space.substringAfter(':').take(SPACE_DIGITS)}.gallery")
        app.filesDir.listFiles { other -> other.name.endsWith(".gallery") && other != file }.orEmpty().forEach { it.delete() }
        val size = embedding.shape()[1].value()
        return try {
            Gallery.open(file.toPath(), space, size)
        } catch (damaged: StorageException) { // nothing is lost that cannot be computed again
            file.delete()
            Gallery.open(file.toPath(), space, size)
        }
    }

    private fun dropGone(gallery: Gallery, photos: List<Photo>) {
        val there = photos.mapTo(HashSet()) { it.id }
        gallery.ids().filter { it !in there }.forEach(gallery::remove)
    }

    private fun begin(gallery: Gallery, photos: List<Photo>) {
        waiting.clear()
        waiting.addAll(photos.filter { !gallery.contains(it.id, it.stamp) })
        total = photos.size
        indexed = photos.size - waiting.size
        failed = 0
        began = System.nanoTime()
        readSinceBegan = 0
        next(gallery)
    }

    private fun next(gallery: Gallery) {
        if (!isRunning) return
        val photo = waiting.removeFirstOrNull() ?: return stop(null)
        app.models.submit({ models ->
            val setup = app.choices.setup(bundle())
            val picture = Pictures.decodeInMemory(library.read(photo.id)).picture
            gallery.put(photo.id, photo.stamp, models.model(setup).embedImage(picture))
        }) { result ->
            readSinceBegan++
            val failure = result.exceptionOrNull()
            when {
                failure == null -> indexed++
                failure is IOException || failure is InputException || failure is OutOfMemoryError -> failed++
                else -> return@submit stop(app.messageFor(failure)) // it would be the same with the next
            }
            changed()
            next(gallery)
        }
    }

    private fun stop(message: String?) {
        isRunning = false
        error = message
        try {
            gallery?.flush()
        } catch (failure: PocketVLException) {
            error = app.messageFor(failure)
        }
        changed()
    }

    private companion object {
        const val MOST_HITS = 60
        const val SPACE_DIGITS = 16
    }
}
