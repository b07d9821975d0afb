package dev.pocketvl.demo

import android.content.res.AssetManager
import dev.pocketvl.core.bundle.BundleSource
import java.io.FileNotFoundException
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.channels.FileChannel

/**
 * A bundle among an app's assets. What lies in the APK uncompressed, as models do, is memory-mapped; the rest, which is
 * small, is read.
 */
class AssetSource(private val assets: AssetManager, private val folder: String) : BundleSource {
    override fun exists(path: String): Boolean = try {
        assets.open("$folder/$path").close()
        true
    } catch (_: IOException) {
        false
    }

    override fun size(path: String): Long = try {
        assets.openFd("$folder/$path").use { it.length }
    } catch (_: FileNotFoundException) { // compressed, or not there
        assets.open("$folder/$path").use { stream -> stream.skipToEnd() }
    }

    override fun open(path: String): ByteBuffer {
        val descriptor = try {
            assets.openFd("$folder/$path")
        } catch (_: FileNotFoundException) {
            return read(path)
        }
        return descriptor.use { found ->
            found.createInputStream().channel.use { it.map(FileChannel.MapMode.READ_ONLY, found.startOffset, found.length) }
        }
    }

    override fun toString(): String = folder

    private fun read(path: String): ByteBuffer {
        val bytes = assets.open("$folder/$path").use { it.readBytes() }
        return ByteBuffer.allocateDirect(bytes.size).put(bytes).apply { flip() }
    }
}

private fun java.io.InputStream.skipToEnd(): Long {
    val buffer = ByteArray(1 shl 16)
    var bytes = 0L
    while (true) {
        val count = read(buffer)
        if (count < 0) return bytes
        bytes += count
    }
}
