package dev.pocketvl.demo

import android.Manifest
import android.content.ContentUris
import android.content.Context
import android.content.pm.PackageManager
import android.graphics.Bitmap
import android.net.Uri
import android.os.Build
import android.provider.MediaStore
import android.util.Size
import java.io.FileNotFoundException
import java.io.IOException

/**
 * A photo of the phone.
 *
 * @property stamp changes when its file does
 */
class Photo(val id: Long, val stamp: Long)

/** The phone's photos, as the system's media store lists them. */
class PhotoLibrary(private val context: Context) {
    private val resolver = context.contentResolver

    /** What this Android version asks the user for. */
    val permissions: Array<String> = when {
        Build.VERSION.SDK_INT >= Build.VERSION_CODES.UPSIDE_DOWN_CAKE ->
            arrayOf(Manifest.permission.READ_MEDIA_IMAGES, Manifest.permission.READ_MEDIA_VISUAL_USER_SELECTED)
        Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU -> arrayOf(Manifest.permission.READ_MEDIA_IMAGES)
        else -> arrayOf(Manifest.permission.READ_EXTERNAL_STORAGE)
    }

    /** Whether some photos may be read. */
    val mayRead: Boolean get() = permissions.any(::isGranted)

    /** Whether the user allowed some photos only. */
    val isPartial: Boolean get() = mayRead && !isGranted(permissions[0])

    /** All photos that may be read, the newest first. */
    fun photos(): List<Photo> {
        val columns = arrayOf(MediaStore.MediaColumns._ID, MediaStore.MediaColumns.DATE_MODIFIED, MediaStore.MediaColumns.SIZE)
        val newestFirst = "${MediaStore.MediaColumns.DATE_ADDED} DESC"
        val found = ArrayList<Photo>()
        resolver.query(COLLECTION, columns, null, null, newestFirst)?.use { cursor ->
            while (cursor.moveToNext()) {
                found.add(Photo(cursor.getLong(0), cursor.getLong(1) * STAMP_FACTOR + cursor.getLong(2)))
            }
        }
        return found
    }

    /** The file of a photo. */
    fun read(id: Long): ByteArray = (resolver.openInputStream(uri(id)) ?: throw FileNotFoundException(uri(id).toString())).use { it.readBytes() }

    /** A small picture of it: the system's, or else made of the file; null where there is none. */
    fun thumbnail(id: Long, edge: Int): Bitmap? = fromSystem(id, edge) ?: quietly { Pictures.preview(read(id), edge) }

    private fun fromSystem(id: Long, edge: Int): Bitmap? =
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) null else quietly { resolver.loadThumbnail(uri(id), Size(edge, edge), null) }

    private fun quietly(load: () -> Bitmap): Bitmap? = try {
        load()
    } catch (_: IOException) {
        null
    } catch (_: RuntimeException) { // it is gone, or damaged
        null
    }

    fun uri(id: Long): Uri = ContentUris.withAppendedId(COLLECTION, id)

    private fun isGranted(permission: String) = context.checkSelfPermission(permission) == PackageManager.PERMISSION_GRANTED

    private companion object {
        val COLLECTION: Uri = MediaStore.Images.Media.EXTERNAL_CONTENT_URI

        /** More than a photo has bytes, as far as the two numbers of a stamp must not meet. */
        const val STAMP_FACTOR = 1_000_000_007L
    }
}
