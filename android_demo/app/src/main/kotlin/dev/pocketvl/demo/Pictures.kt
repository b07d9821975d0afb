package dev.pocketvl.demo

import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.ImageDecoder
import android.graphics.Matrix
import android.media.ExifInterface
import android.os.Build
import dev.pocketvl.core.errors.InputException
import dev.pocketvl.core.image.Picture
import dev.pocketvl.core.image.PictureDecoder
import java.io.ByteArrayInputStream
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.IntBuffer

/**
 * A decoded picture.
 *
 * @property halved 1, or 2, 4, ... where memory did not suffice for the whole picture and it was read at a fraction of its edges
 */
class Decoded(val picture: Picture, val halved: Int)

/**
 * Decodes pictures with what Android has. Colours are the file's own numbers, not converted between colour spaces, as
 * the runtime reads them; opacity is not multiplied into them.
 */
object Pictures : PictureDecoder {
    private const val SMALLEST_FRACTION = 4

    override fun decode(file: ByteArray): Picture = decode(file, 1)

    /** Like [decode], and at half or a quarter of the size where the whole does not fit into memory. */
    fun decodeInMemory(file: ByteArray): Decoded {
        var fraction = 1
        while (true) {
            try {
                return Decoded(decode(file, fraction), fraction)
            } catch (error: OutOfMemoryError) {
                if (fraction >= SMALLEST_FRACTION) throw error
                fraction *= 2
            }
        }
    }

    /** A small upright bitmap to show, of about [edge] pixels a side. */
    fun preview(file: ByteArray, edge: Int): Bitmap {
        val bounds = BitmapFactory.Options().apply { inJustDecodeBounds = true }
        BitmapFactory.decodeByteArray(file, 0, file.size, bounds)
        val sample = (maxOf(bounds.outWidth, bounds.outHeight) / edge).coerceAtLeast(1)
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.P) return decodeBitmap(file, sample, unpremultiplied = false)
        val options = BitmapFactory.Options().apply { inSampleSize = sample }
        val bitmap = BitmapFactory.decodeByteArray(file, 0, file.size, options) ?: throw unreadable(null)
        return Bitmap.createBitmap(bitmap, 0, 0, bitmap.width, bitmap.height, upright(orientation(file)), true)
    }

    private fun decode(file: ByteArray, fraction: Int): Picture {
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.P) {
            return picture(decodeBitmap(file, fraction, unpremultiplied = true), orientation = 1) // ImageDecoder turns it
        }
        val options = BitmapFactory.Options().apply {
            inPremultiplied = false
            inScaled = false
            inSampleSize = fraction
        }
        val bitmap = BitmapFactory.decodeByteArray(file, 0, file.size, options) ?: throw unreadable(null)
        return picture(bitmap, orientation(file))
    }

    private fun decodeBitmap(file: ByteArray, fraction: Int, unpremultiplied: Boolean): Bitmap = try {
        ImageDecoder.decodeBitmap(ImageDecoder.createSource(ByteBuffer.wrap(file))) { decoder, _, _ ->
            decoder.allocator = ImageDecoder.ALLOCATOR_SOFTWARE
            decoder.isUnpremultipliedRequired = unpremultiplied
            decoder.setTargetSampleSize(fraction)
        }
    } catch (error: IOException) {
        throw unreadable(error)
    }

    private fun picture(decoded: Bitmap, orientation: Int): Picture {
        // Pictures of more than 8 bits come as other kinds of bitmaps.
        val bitmap = if (decoded.config == Bitmap.Config.ARGB_8888) decoded else decoded.copy(Bitmap.Config.ARGB_8888, false)
        if (bitmap !== decoded) decoded.recycle()
        val argb = IntArray(Math.multiplyExact(bitmap.width, bitmap.height))
        bitmap.copyPixelsToBuffer(IntBuffer.wrap(argb)) // unlike getPixels, without conversion to sRGB
        val picture = Picture(bitmap.width, bitmap.height, argb, orientation)
        bitmap.recycle()
        if (redComesFirst) {
            for (i in argb.indices) {
                val abgr = argb[i]
                argb[i] = abgr and -0xff0100 or (abgr shl 16 and 0xff0000) or (abgr shr 16 and 0xff)
            }
        }
        return picture
    }

    /** Whether a bitmap's bytes are red, green, blue, as on phones; graphics built for desktops, which tests use, have blue first. */
    private val redComesFirst: Boolean by lazy {
        val bitmap = Bitmap.createBitmap(intArrayOf(-0x10000), 1, 1, Bitmap.Config.ARGB_8888)
        val stored = IntArray(1)
        bitmap.copyPixelsToBuffer(IntBuffer.wrap(stored))
        stored[0] and 0xff == 0xff
    }

    private fun orientation(file: ByteArray): Int = try {
        ExifInterface(ByteArrayInputStream(file)).getAttributeInt(ExifInterface.TAG_ORIENTATION, 1).takeIf { it in 1..8 } ?: 1
    } catch (_: IOException) {
        1
    }

    private fun upright(orientation: Int) = Matrix().apply {
        if (orientation in intArrayOf(2, 5, 7)) postScale(-1f, 1f)
        if (orientation == 4) postScale(1f, -1f)
        postRotate(
            when (orientation) {
                3 -> 180f
                5, 8 -> 270f
                6, 7 -> 90f
                else -> 0f
            },
        )
    }

    private fun unreadable(cause: Throwable?) =
        InputException("the picture is damaged, or of a kind that this phone does not read; choose another", cause)
}
