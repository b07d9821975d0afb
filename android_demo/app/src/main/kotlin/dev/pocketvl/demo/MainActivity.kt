package dev.pocketvl.demo

import android.content.ActivityNotFoundException
import android.content.ClipData
import android.content.Intent
import android.os.Build
import android.os.Bundle
import android.os.ext.SdkExtensions
import android.provider.MediaStore
import android.view.View
import android.view.ViewGroup
import android.view.inputmethod.EditorInfo
import android.view.inputmethod.InputMethodManager
import android.widget.Button
import android.widget.EditText
import android.widget.ImageView
import android.widget.RadioGroup
import android.widget.TextView

/** A picture, what is asked about it, and the answers. */
class MainActivity : SessionActivity() {
    override val session by lazy { demo.question }
    private val labels by lazy { view<EditText>(R.id.labels) }
    private val question by lazy { view<EditText>(R.id.question) }
    private val setup by lazy { SetupPanel(view(R.id.root)) { session.clearOutcome() } }

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.main)
        drawEdgeToEdge(view(R.id.root), view(R.id.scroll))
        savedInstanceState?.getBundle(SESSION)?.let(session::restore)
        view<View>(R.id.choose).setOnClickListener { choosePicture() }
        view<View>(R.id.take).setOnClickListener { takePicture() }
        view<View>(R.id.go).setOnClickListener { ask() }
        view<View>(R.id.photos).setOnClickListener { startActivity(Intent(this, GalleryActivity::class.java)) }
        view<View>(R.id.self_test).setOnClickListener { startActivity(Intent(this, SelfTestActivity::class.java)) }
        view<View>(R.id.bench).setOnClickListener { startActivity(Intent(this, BenchActivity::class.java)) }
        question.setOnEditorActionListener { _, action, _ -> (action == EditorInfo.IME_ACTION_GO).also { if (it) ask() } }
        val mode = view<RadioGroup>(R.id.mode)
        mode.check(if (session.mode == Mode.LABELS) R.id.mode_labels else R.id.mode_question)
        mode.setOnCheckedChangeListener { _, chosen -> switchTo(if (chosen == R.id.mode_labels) Mode.LABELS else Mode.QUESTION) }
        showMode()
    }

    override fun onSaveInstanceState(outState: Bundle) {
        super.onSaveInstanceState(outState)
        outState.putBundle(SESSION, Bundle().also(session::save))
    }

    @Deprecated("The framework has nothing newer without AndroidX")
    override fun onActivityResult(requestCode: Int, resultCode: Int, data: Intent?) {
        if (resultCode != RESULT_OK) return
        when (requestCode) {
            CHOOSE -> data?.data?.let(session::pick)
            TAKE -> session.takeCaptured()
        }
    }

    private fun choosePicture() {
        val picker = if (hasPhotoPicker()) {
            Intent(MediaStore.ACTION_PICK_IMAGES).setType("image/*")
        } else {
            Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE).setType("image/*")
        }
        val anyOther = Intent(Intent.ACTION_GET_CONTENT).addCategory(Intent.CATEGORY_OPENABLE).setType("image/*")
        if (!start(picker, CHOOSE) && !start(anyOther, CHOOSE)) session.fail(UserException(R.string.error_no_picker))
    }

    private fun takePicture() {
        demo.pictures.prepareCapture()
        val target = demo.pictures.captureUri
        val camera = Intent(MediaStore.ACTION_IMAGE_CAPTURE).putExtra(MediaStore.EXTRA_OUTPUT, target)
            .addFlags(Intent.FLAG_GRANT_WRITE_URI_PERMISSION or Intent.FLAG_GRANT_READ_URI_PERMISSION)
        camera.clipData = ClipData.newRawUri(null, target) // the rights go with the clip, on older versions
        if (!start(camera, TAKE)) session.fail(UserException(R.string.error_no_camera))
    }

    private fun start(intent: Intent, request: Int): Boolean = try {
        @Suppress("DEPRECATION")
        startActivityForResult(intent, request)
        true
    } catch (_: ActivityNotFoundException) {
        false
    }

    private fun ask() {
        val field = if (session.mode == Mode.LABELS) labels else question
        getSystemService(InputMethodManager::class.java)?.hideSoftInputFromWindow(field.windowToken, 0)
        session.ask(field.text.toString())
    }

    private fun switchTo(mode: Mode) {
        if (session.mode == mode) return
        session.mode = mode
        session.clearOutcome()
        showMode()
    }

    private fun showMode() {
        val asksLabels = session.mode == Mode.LABELS
        labels.visibility = if (asksLabels) View.VISIBLE else View.GONE
        question.visibility = if (asksLabels) View.GONE else View.VISIBLE
        view<Button>(R.id.go).setText(if (asksLabels) R.string.rank else R.string.ask)
        setup.show(
            try {
                session.bundle()
            } catch (error: RuntimeException) {
                session.fail(error)
                null
            },
        )
    }

    override fun show() {
        val preview = session.preview
        view<ImageView>(R.id.picture).apply {
            setImageBitmap(preview)
            visibility = if (preview == null) View.GONE else View.VISIBLE
        }
        view<View>(R.id.picture_hint).visibility = if (preview == null) View.VISIBLE else View.GONE
        view<View>(R.id.go).isEnabled = !session.isWorking
        view<View>(R.id.working).visibility = if (session.isWorking) View.VISIBLE else View.GONE
        val outcome = session.outcome
        view<View>(R.id.result_card).visibility = if (outcome == null && !session.isWorking) View.GONE else View.VISIBLE
        showAnswers(outcome ?: Outcome())
        showLatency(outcome ?: Outcome())
    }

    private fun showAnswers(outcome: Outcome) {
        view<TextView>(R.id.message).apply {
            text = outcome.error ?: outcome.notes
            setTextColor(getColor(if (outcome.error == null) R.color.text_quiet else R.color.bad))
            visibility = if (text.isEmpty()) View.GONE else View.VISIBLE
        }
        view<ViewGroup>(R.id.answers).fill(R.layout.answer, outcome.labels.indices) { row, i ->
            val percent = "%.1f".format(100 * outcome.probabilities[i])
            row.view<TextView>(R.id.label).text = outcome.labels[i]
            row.view<TextView>(R.id.value).text = getString(R.string.percent, percent)
            row.view<BarView>(R.id.bar).fraction = outcome.probabilities[i].toFloat()
            row.contentDescription = getString(R.string.answer_description, outcome.labels[i], percent)
        }
    }

    private fun showLatency(outcome: Outcome) {
        view<View>(R.id.latency_card).visibility = if (outcome.stages.isEmpty()) View.GONE else View.VISIBLE
        val rows = outcome.stages.zip(outcome.milliseconds.toList()) + (getString(R.string.total) to outcome.milliseconds.sum())
        view<ViewGroup>(R.id.stages).fill(R.layout.stage, rows.indices) { row, i ->
            row.view<TextView>(R.id.label).text = rows[i].first
            row.view<TextView>(R.id.value).text = getString(R.string.milliseconds, "%.1f".format(rows[i].second))
        }
        val busy = getString(R.string.threads_busy, "%.1f".format(outcome.threadsBusy), outcome.threads)
        val idle = if (outcome.threadsBusy < IDLE * outcome.threads) listOf(getString(R.string.threads_idle)) else emptyList()
        view<TextView>(R.id.placement).text = (listOf(busy) + idle + outcome.placement).joinToString("\n")
    }

    private companion object {
        const val SESSION = "session"
        const val CHOOSE = 1
        const val TAKE = 2

        /** Of the threads asked for, below which something held them. */
        const val IDLE = 0.5
    }
}

/** Whether the system has the picker that needs no permission: Android 13, and older ones that were given it. */
fun hasPhotoPicker(): Boolean = Build.VERSION.SDK_INT >= Build.VERSION_CODES.TIRAMISU ||
    Build.VERSION.SDK_INT >= Build.VERSION_CODES.R && SdkExtensions.getExtensionVersion(Build.VERSION_CODES.R) >= 2
