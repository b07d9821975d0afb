package dev.pocketvl.demo

import android.content.ContentProvider
import android.content.ContentValues
import android.content.Context
import android.database.Cursor
import android.net.Uri
import android.os.ParcelFileDescriptor
import java.io.File
import java.io.FileNotFoundException

/**
 * The picture that is asked about, as a file of the app's own: the right to read what the user picked ends with the
 * process, and the picture must outlive it.
 */
class PictureFiles(context: Context) {
    private val resolver = context.contentResolver
    private val folder = File(context.cacheDir, "pictures")

    /** Where the camera app is told to write. */
    val captureUri: Uri = Uri.parse("content://${context.packageName}.capture/$CAPTURE")

    /**
     * Copies a picture that the user picked; earlier ones are deleted.
     *
     * @throws PictureTooLargeException it has more bytes than any picture
     * @throws java.io.IOException it cannot be read
     * @throws SecurityException the app may not read it
     */
    fun copy(picked: Uri): File {
        val target = fresh()
        val stream = resolver.openInputStream(picked) ?: throw FileNotFoundException(picked.toString())
        stream.use { from ->
            target.outputStream().use { to ->
                val buffer = ByteArray(1 shl 16)
                var bytes = 0L
                while (true) {
                    val count = from.read(buffer)
                    if (count < 0) break
                    bytes += count
                    if (bytes > MOST_BYTES) throw PictureTooLargeException(MOST_BYTES / 1_000_000)
                    to.write(buffer, 0, count)
                }
            }
        }
        deleteOthers(target)
        return target
    }

    /** Makes room for the camera app; to be called before it is started. */
    fun prepareCapture() {
        folder.mkdirs()
        File(folder, CAPTURE).delete()
    }

    /** What the camera app wrote. */
    fun captured(): File {
        val written = File(folder, CAPTURE)
        if (written.length() == 0L) throw FileNotFoundException(CAPTURE)
        val target = fresh()
        written.renameTo(target)
        deleteOthers(target)
        return target
    }

    private fun fresh(): File {
        folder.mkdirs()
        return File.createTempFile("picture", null, folder)
    }

    private fun deleteOthers(kept: File) = folder.listFiles().orEmpty().filter { it != kept }.forEach { it.delete() }

    companion object {
        const val CAPTURE = "capture"
        private const val MOST_BYTES = 100_000_000L
    }
}

/** A file is larger than pictures are. */
class PictureTooLargeException(val megabytes: Long) : Exception()

/** Hands one file to the camera app, for writing. */
class CaptureProvider : ContentProvider() {
    override fun onCreate() = true

    override fun getType(uri: Uri) = "image/jpeg"

    override fun openFile(uri: Uri, mode: String): ParcelFileDescriptor {
        if (uri.path != "/${PictureFiles.CAPTURE}") throw FileNotFoundException(uri.toString())
        val folder = File(requireNotNull(context).cacheDir, "pictures").apply { mkdirs() }
        return ParcelFileDescriptor.open(File(folder, PictureFiles.CAPTURE), ParcelFileDescriptor.parseMode(mode))
    }

    override fun query(uri: Uri, columns: Array<String>?, where: String?, values: Array<String>?, order: String?): Cursor? = null

    override fun insert(uri: Uri, values: ContentValues?): Uri? = null

    override fun delete(uri: Uri, where: String?, values: Array<String>?) = 0

    override fun update(uri: Uri, values: ContentValues?, where: String?, arguments: Array<String>?) = 0
}
