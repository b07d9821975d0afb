package dev.pocketvl.demo

import android.graphics.Bitmap
import android.net.Uri
import android.os.Bundle
import dev.pocketvl.core.engine.EngineOptions
import dev.pocketvl.core.engine.ProcessorTime
import dev.pocketvl.core.image.Picture
import dev.pocketvl.core.tasks.Model
import dev.pocketvl.core.tasks.StageTimes
import java.io.File
import java.io.FileNotFoundException
import java.util.concurrent.Executors

/** What is asked about a picture. */
enum class Mode { LABELS, QUESTION }

/**
 * The question that is being asked, and its answer: it outlives the screen that shows it, which may be turned or rebuilt
 * at any time, and is saved with it for the case that the process is killed.
 */
class QuestionSession(private val app: DemoApplication) : Session() {
    private val files = Executors.newSingleThreadExecutor { Thread(it, "pictures") }

    var picture: File? = null
        private set
    var preview: Bitmap? = null
        private set
    var mode = Mode.LABELS
    var outcome: Outcome? = null
        private set
    var isWorking = false
        private set

    /** The bundle that answers in the present mode; throws where none can. */
    fun bundle(): InstalledBundle = app.shelf.first { if (mode == Mode.LABELS) it.matches else it.answers }

    /** Takes over a picture that the user picked. */
    fun pick(uri: Uri) = takeOver { app.pictures.copy(uri) }

    /** Takes over what the camera app wrote. */
    fun takeCaptured() = takeOver { app.pictures.captured() }

    /** Says what went wrong outside. */
    fun fail(error: Throwable) = finish(Outcome(error = app.messageFor(error)))

    /** Forgets the last answer: it belongs to another question. */
    fun clearOutcome() {
        outcome = null
        changed()
    }

    /** Ranks labels, or asks a question, on the model's thread. */
    fun ask(text: String) {
        val file = picture
        val wanted = try {
            question(text, file)
        } catch (error: Exception) {
            fail(error)
            return
        }
        isWorking = true
        outcome = null
        changed()
        app.models.submit({ models -> wanted(models) }) { result ->
            isWorking = false
            finish(result.getOrElse { Outcome(error = app.messageFor(it)) })
        }
    }

    /** For [restore]. */
    fun save(state: Bundle) {
        state.putString("picture", picture?.path)
        state.putString("mode", mode.name)
        outcome?.let { state.putBundle("outcome", it.save()) }
    }

    /** Takes over what [save] kept, if this process has not begun anything yet. */
    fun restore(state: Bundle) {
        if (picture != null || outcome != null || isWorking) return
        mode = state.getString("mode")?.let(Mode::valueOf) ?: Mode.LABELS
        outcome = state.getBundle("outcome")?.let(Outcome::restore)
        val kept = state.getString("picture")?.let(::File) ?: return
        takeOver(keepOutcome = true) { if (kept.isFile) kept else throw FileNotFoundException(kept.name) }
    }

    private fun takeOver(keepOutcome: Boolean = false, file: () -> File) {
        files.execute {
            val result = runCatching { file().let { it to Pictures.preview(it.readBytes(), PREVIEW_EDGE) } }
            app.onMain.execute {
                if (!keepOutcome) outcome = null
                result.onSuccess { (file, bitmap) ->
                    picture = file
                    preview = bitmap
                    changed()
                }.onFailure {
                    picture = null
                    preview = null
                    fail(it)
                }
            }
        }
    }

    private fun question(text: String, file: File?): (ModelThread) -> Outcome {
        if (file == null) throw UserException(R.string.picture_missing)
        val bundle = bundle()
        val setup = app.choices.setup(bundle)
        if (mode == Mode.QUESTION) {
            if (text.isBlank()) throw UserException(R.string.question_missing)
            return { models -> timed(file, models.model(setup), setup.options) { picture -> asked(picture, text.trim()) } }
        }
        val labels = text.lines().map { it.trim() }.filter { it.isNotEmpty() }.distinct()
        if (labels.isEmpty()) throw UserException(R.string.labels_missing)
        if (labels.size > MOST_LABELS) throw UserException(R.string.labels_too_many, labels.size, MOST_LABELS)
        return { models -> timed(file, models.model(setup), setup.options) { picture -> ranked(picture, labels) } }
    }

    /** An answer, and how long its stages took. */
    private class Timed(val ranked: List<Pair<String, Double>>, val truncated: List<String>, val times: StageTimes)

    private fun Model.ranked(picture: Picture, labels: List<String>): Timed {
        val match = match(picture, labels)
        return Timed(match.ranked().map { it.text() to it.probability() }, match.truncated(), match.times())
    }

    private fun Model.asked(picture: Picture, question: String): Timed {
        val answers = ask(picture, question)
        val cut = if (answers.truncated()) listOf(question) else emptyList()
        return Timed(answers.ranked().take(MOST_ANSWERS).map { it.text() to it.probability() }, cut, answers.times())
    }

    private fun timed(
        file: File,
        model: Model,
        options: EngineOptions,
        answer: Model.(Picture) -> Timed,
    ): Outcome {
        val start = System.nanoTime()
        val decoded = Pictures.decodeInMemory(file.readBytes())
        val decode = System.nanoTime() - start
        val processors = ProcessorTime.nanos()
        val began = System.nanoTime()
        val answered = model.answer(decoded.picture)
        val busy = (ProcessorTime.nanos() - processors).toDouble() / (System.nanoTime() - began)
        val stages = mapOf("decode" to decode) + answered.times.nanoseconds()
        return Outcome(
            answered.ranked.map { it.first },
            answered.ranked.map { it.second }.toDoubleArray(),
            stages.keys.toList(),
            stages.values.map { it / 1e6 }.toDoubleArray(),
            options.threads(),
            busy,
            app.describePlacements(model),
            notes(decoded, answered),
        )
    }

    private fun notes(decoded: Decoded, answered: Timed): String = buildList {
        if (decoded.halved > 1) add(app.getString(R.string.halved, decoded.halved))
        if (answered.truncated.isNotEmpty()) add(app.getString(R.string.truncated, answered.truncated.joinToString("; ")))
    }.joinToString("\n")

    private fun finish(outcome: Outcome) {
        this.outcome = outcome
        changed()
    }

    private companion object {
        const val PREVIEW_EDGE = 900
        const val MOST_LABELS = 200
        const val MOST_ANSWERS = 8
    }
}
