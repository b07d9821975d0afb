package dev.pocketvl.demo

import android.os.Bundle

/**
 * What became of a question.
 *
 * @property labels answers, the likeliest first
 * @property probabilities of them, 0 to 1
 * @property stages names of what was timed
 * @property milliseconds of the stages
 * @property threads that were asked for
 * @property threadsBusy processor time over time, while the model ran
 * @property placement which delegate took which component, and notes of the engine, one a line
 * @property notes for the user: what was cut or reduced
 * @property error what went wrong, instead of all that
 */
class Outcome(
    val labels: List<String> = emptyList(),
    val probabilities: DoubleArray = DoubleArray(0),
    val stages: List<String> = emptyList(),
    val milliseconds: DoubleArray = DoubleArray(0),
    val threads: Int = 0,
    val threadsBusy: Double = 0.0,
    val placement: String = "",
    val notes: String = "",
    val error: String? = null,
) {
    /** For [restore] after the process was killed. */
    fun save() = Bundle().also {
        it.putStringArrayList("labels", ArrayList(labels))
        it.putDoubleArray("probabilities", probabilities)
        it.putStringArrayList("stages", ArrayList(stages))
        it.putDoubleArray("milliseconds", milliseconds)
        it.putInt("threads", threads)
        it.putDouble("threadsBusy", threadsBusy)
        it.putString("placement", placement)
        it.putString("notes", notes)
        it.putString("error", error)
    }

    companion object {
        /** What [save] kept. */
        fun restore(kept: Bundle) = Outcome(
            kept.getStringArrayList("labels").orEmpty(),
            kept.getDoubleArray("probabilities") ?: DoubleArray(0),
            kept.getStringArrayList("stages").orEmpty(),
            kept.getDoubleArray("milliseconds") ?: DoubleArray(0),
            kept.getInt("threads"),
            kept.getDouble("threadsBusy"),
            kept.getString("placement").orEmpty(),
            kept.getString("notes").orEmpty(),
            kept.getString("error"),
        )
    }
}
