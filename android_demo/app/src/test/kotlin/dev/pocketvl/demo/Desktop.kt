package dev.pocketvl.demo

import android.app.Activity
import android.content.ContentProvider
import android.content.ContentUris
import android.content.ContentValues
import android.content.Intent
import android.content.pm.ProviderInfo
import android.database.Cursor
import android.database.MatrixCursor
import android.graphics.Bitmap
import android.graphics.Canvas
import android.net.Uri
import android.os.Looper
import android.provider.MediaStore
import android.view.View
import android.view.ViewGroup
import android.widget.TextView
import dev.pocketvl.core.engine.Engine
import dev.pocketvl.engines.onnx.OnnxEngine
import dev.pocketvl.engines.tflite.TfliteEngine
import org.robolectric.Robolectric
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import java.io.File
import java.io.InputStream
import java.nio.file.Files
import java.nio.file.Path
import java.nio.file.Paths

/** The app with real engines of this machine, and bundles in its external files. */
class DesktopApplication : DemoApplication() {
    override fun engines(): List<Engine> = desktopEngines

    /** As a new process begins: nothing of the old one is there but what was saved. */
    fun forgetSession() {
        question = QuestionSession(this)
    }

    /** Links a bundle to where the app looks for those of developers. */
    fun install(bundle: Path, name: String = bundle.fileName.toString()) {
        val folder = File(getExternalFilesDir(null), "bundles").apply { mkdirs() }
        Files.createSymbolicLink(folder.toPath().resolve(name), bundle)
    }

    companion object {
        val toys: Path = Paths.get(System.getProperty("pocketvl.toy.bundles"))

        /** ONNX Runtime, and TFLite out of the AAR where it was made loadable. */
        val desktopEngines: List<Engine> by lazy {
            val tflite = System.getProperty("pocketvl.tflite.library").orEmpty()
            listOf(OnnxEngine()) + if (tflite.isEmpty()) emptyList() else listOf(TfliteEngine(Paths.get(tflite)))
        }
    }
}

/** Lets the app work until something holds. */
fun await(what: String, holds: () -> Boolean) {
    val end = System.nanoTime() + 60_000_000_000
    while (true) {
        shadowOf(Looper.getMainLooper()).idle()
        if (holds()) return
        check(System.nanoTime() < end) { "$what did not happen within a minute" }
        Thread.sleep(10)
    }
}

/** What a view shows as text, with what lies in it. */
fun View.texts(): List<String> = when {
    visibility != View.VISIBLE -> emptyList()
    this is TextView -> listOf(text.toString())
    this is ViewGroup -> (0 until childCount).flatMap { getChildAt(it).texts() }
    else -> emptyList()
}

fun Activity.text(id: Int): String = view<TextView>(id).text.toString()

fun Activity.click(id: Int) {
    check(view<View>(id).performClick()) { "it does not listen" }
    shadowOf(Looper.getMainLooper()).idle()
}

/** Answers the picker as the system does: with the address of a picture. */
fun Activity.givePicture(content: ByteArray, name: String = "picture") = givePicture(name) { content.inputStream() }

fun Activity.givePicture(name: String, open: () -> InputStream) {
    val picker = shadowOf(this).nextStartedActivityForResult
    val uri = Uri.parse("content://picker/$name")
    shadowOf(contentResolver).registerInputStreamSupplier(uri) { open() }
    shadowOf(this).receiveResult(picker.intent, Activity.RESULT_OK, Intent().setData(uri))
}

/** Draws what a screen shows into a PNG. */
fun Activity.screenshot(name: String) {
    val folder = File(System.getProperty("pocketvl.screenshots")).apply { mkdirs() }
    val view = window.decorView
    val metrics = resources.displayMetrics
    view.measure(
        View.MeasureSpec.makeMeasureSpec(metrics.widthPixels, View.MeasureSpec.EXACTLY),
        View.MeasureSpec.makeMeasureSpec(metrics.heightPixels, View.MeasureSpec.EXACTLY),
    )
    view.layout(0, 0, view.measuredWidth, view.measuredHeight)
    shadowOf(Looper.getMainLooper()).idle()
    val bitmap = Bitmap.createBitmap(view.width, view.height, Bitmap.Config.ARGB_8888)
    view.draw(Canvas(bitmap))
    File(folder, "$name.png").outputStream().use { bitmap.compress(Bitmap.CompressFormat.PNG, 100, it) }
}

/** The system's media store, with photos that lie in files. */
class MediaStoreOfFiles : ContentProvider() {
    override fun onCreate() = true

    override fun query(uri: Uri, columns: Array<String>?, where: String?, values: Array<String>?, order: String?): Cursor {
        val cursor = MatrixCursor(columns)
        photos.forEach { (id, file) ->
            cursor.addRow(
                columns.orEmpty().map {
                    when (it) {
                        MediaStore.MediaColumns._ID -> id
                        MediaStore.MediaColumns.SIZE -> file.length()
                        else -> file.lastModified() / 1000
                    }
                },
            )
        }
        return cursor
    }

    override fun getType(uri: Uri) = "image/*"

    override fun insert(uri: Uri, values: ContentValues?): Uri? = null

    override fun delete(uri: Uri, where: String?, values: Array<String>?) = 0

    override fun update(uri: Uri, values: ContentValues?, where: String?, arguments: Array<String>?) = 0

    companion object {
        private var photos: Map<Long, File> = emptyMap()

        /** Puts it where the app looks; files are handed over as streams, since Robolectric has no file descriptors. */
        fun register(photos: Map<Long, File>) {
            this.photos = photos
            val resolver = shadowOf(RuntimeEnvironment.getApplication().contentResolver)
            photos.forEach { (id, file) ->
                val uri = ContentUris.withAppendedId(MediaStore.Images.Media.EXTERNAL_CONTENT_URI, id)
                resolver.registerInputStreamSupplier(uri) { file.inputStream() }
            }
            Robolectric.buildContentProvider(MediaStoreOfFiles::class.java).create(ProviderInfo().apply { authority = MediaStore.AUTHORITY })
        }
    }
}
