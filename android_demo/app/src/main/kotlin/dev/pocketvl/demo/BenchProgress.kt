package dev.pocketvl.demo

import org.json.JSONObject
import java.io.File

/**
 * A small file beside a bench's result that a computer reads over and over: `{"done": 3, "count": 62}` while it runs,
 * with `"written": PATH` once the result is there, with `"error": TEXT` where there will be none. It is replaced in one step, so that
 * no half of it is ever read.
 */
class BenchProgress(private val result: File) {
    private val file = File(result.path + ".progress")
    private var last = 0L

    /** Removes what an earlier run left. */
    fun begin(count: Int) {
        result.delete()
        write(JSONObject().put("done", 0).put("count", count))
    }

    /** Tells how much is done, at most twice a second: writing must not disturb what is measured. */
    fun tell(done: Int, count: Int) {
        val now = System.nanoTime()
        if (now - last < INTERVAL_NANOS) return
        last = now
        write(JSONObject().put("done", done).put("count", count))
    }

    /** Puts the result into its place, and says so. */
    fun finish(text: String, count: Int) {
        replace(result, text)
        write(JSONObject().put("done", count).put("count", count).put("written", result.path))
    }

    /** Says why there is no result, and leaves none of an earlier run that could be taken for it. */
    fun fail(message: String) {
        result.delete()
        write(JSONObject().put("error", message))
    }

    private fun write(state: JSONObject) = replace(file, state.toString())

    private fun replace(target: File, text: String) {
        val whole = File(target.path + ".part")
        whole.writeText(text)
        check(whole.renameTo(target)) { "$target cannot be written" }
    }

    private companion object {
        const val INTERVAL_NANOS = 500_000_000L
    }
}
