package dev.pocketvl.demo

import android.content.Intent
import android.content.pm.PackageManager
import android.net.Uri
import android.os.Build
import android.os.Bundle
import android.provider.Settings
import android.view.LayoutInflater
import android.view.View
import android.view.ViewGroup
import android.view.inputmethod.EditorInfo
import android.view.inputmethod.InputMethodManager
import android.widget.BaseAdapter
import android.widget.Button
import android.widget.EditText
import android.widget.GridView
import android.widget.ImageView
import android.widget.ProgressBar
import android.widget.TextView
import android.window.OnBackInvokedCallback
import android.window.OnBackInvokedDispatcher

/** The phone's photos, searched by what is in them. */
class GalleryActivity : SessionActivity() {
    override val session get() = index
    private val index by lazy { demo.photos }
    private val query by lazy { view<EditText>(R.id.query) }
    private val thumbnails by lazy { Thumbnails(index.library, demo.onMain) }
    private val adapter by lazy { HitAdapter() }
    private var refused = false
    private var backToIndex: OnBackInvokedCallback? = null

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        setContentView(R.layout.gallery)
        val hits = view<GridView>(R.id.hits)
        drawEdgeToEdge(view(R.id.root), hits)
        refused = savedInstanceState?.getBoolean(REFUSED) ?: false
        view<TextView>(R.id.title).text = title
        view<View>(R.id.back).setOnClickListener { finish() }
        view<View>(R.id.search).setOnClickListener { search() }
        query.setOnEditorActionListener { _, action, _ -> (action == EditorInfo.IME_ACTION_SEARCH).also { if (it) search() } }
        view<View>(R.id.pause).setOnClickListener { if (index.isPaused) index.resume() else index.pause() }
        view<View>(R.id.allow).setOnClickListener { allow() }
        hits.adapter = adapter
        hits.setOnItemClickListener { _, _, position, _ ->
            demo.question.pick(index.library.uri(adapter.getItemId(position)))
            startActivity(Intent(this, MainActivity::class.java).addFlags(Intent.FLAG_ACTIVITY_CLEAR_TOP or Intent.FLAG_ACTIVITY_SINGLE_TOP))
        }
        // After the process was killed, what was found is found again.
        if (savedInstanceState?.getBoolean(FOUND) == true && index.hits == null) index.search(savedInstanceState.getString(QUERY).orEmpty())
    }

    override fun onStart() {
        index.start()
        super.onStart()
    }

    override fun onDestroy() {
        super.onDestroy()
        thumbnails.close()
    }

    override fun onSaveInstanceState(outState: Bundle) {
        super.onSaveInstanceState(outState)
        outState.putBoolean(REFUSED, refused)
        outState.putBoolean(FOUND, index.hits != null)
        outState.putString(QUERY, query.text.toString())
    }

    override fun onRequestPermissionsResult(requestCode: Int, permissions: Array<out String>, grantResults: IntArray) {
        refused = grantResults.none { it == PackageManager.PERMISSION_GRANTED }
        index.start()
        show()
    }

    @Deprecated("Where the system knows no OnBackInvokedCallback")
    override fun onBackPressed() {
        if (index.hits != null) index.clearHits() else finish()
    }

    private fun allow() {
        // Once refused for good, the system shows nothing more: only its settings can undo that.
        if (refused && !shouldShowRequestPermissionRationale(index.library.permissions[0])) {
            startActivity(Intent(Settings.ACTION_APPLICATION_DETAILS_SETTINGS, Uri.fromParts("package", packageName, null)))
        } else {
            requestPermissions(index.library.permissions, 0)
        }
    }

    private fun search() {
        if (query.text.isBlank()) return
        getSystemService(InputMethodManager::class.java)?.hideSoftInputFromWindow(query.windowToken, 0)
        index.search(query.text.toString().trim())
    }

    override fun show() {
        val mayRead = index.library.mayRead
        view<Button>(R.id.allow).apply {
            visibility = if (mayRead) View.GONE else View.VISIBLE
            setText(if (refused) R.string.open_settings else R.string.allow_photos)
        }
        view<TextView>(R.id.message).apply {
            text = when {
                !mayRead -> getString(if (refused) R.string.photos_refused else R.string.photos_why)
                index.error != null -> index.error
                index.hits?.isEmpty() == true -> getString(R.string.no_hits)
                index.library.isPartial -> getString(R.string.photos_partial)
                else -> ""
            }
            setTextColor(getColor(if (index.error != null || refused && !mayRead) R.color.bad else R.color.text))
            visibility = if (text.isNullOrEmpty()) View.GONE else View.VISIBLE
        }
        view<View>(R.id.search).isEnabled = mayRead
        showProgress(mayRead)
        adapter.notifyDataSetChanged()
        watchBack(index.hits != null)
    }

    private fun showProgress(mayRead: Boolean) {
        val total = index.total
        val waits = total != null && index.indexed + index.failed < total
        view<ProgressBar>(R.id.progress).apply {
            visibility = if (waits) View.VISIBLE else View.GONE
            max = total ?: 1
            progress = index.indexed + index.failed
        }
        view<Button>(R.id.pause).apply {
            visibility = if (waits) View.VISIBLE else View.GONE
            setText(if (index.isPaused) R.string.resume else R.string.pause)
        }
        view<TextView>(R.id.status).apply {
            text = if (total == null) "" else status(total, waits)
            visibility = if (mayRead) View.VISIBLE else View.GONE
        }
    }

    private fun status(total: Int, waits: Boolean): String = listOfNotNull(
        when {
            total == 0 -> getString(R.string.index_none)
            waits -> getString(R.string.index_progress, index.indexed, total)
            else -> getString(R.string.index_done, index.indexed)
        },
        if (index.failed > 0) getString(R.string.index_failed, index.failed) else null,
        when {
            index.isPaused -> getString(R.string.index_paused)
            waits && index.rate > 0 -> getString(R.string.index_rate, "%.1f".format(index.rate))
            else -> null
        },
    ).joinToString(" · ")

    /** Back leaves what was found before it leaves the screen; else the system's own gesture shows where it leads. */
    private fun watchBack(found: Boolean) {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.TIRAMISU) return
        val watching = backToIndex
        if (found && watching == null) {
            backToIndex = OnBackInvokedCallback { index.clearHits() }.also {
                onBackInvokedDispatcher.registerOnBackInvokedCallback(OnBackInvokedDispatcher.PRIORITY_DEFAULT, it)
            }
        } else if (!found && watching != null) {
            onBackInvokedDispatcher.unregisterOnBackInvokedCallback(watching)
            backToIndex = null
        }
    }

    private inner class HitAdapter : BaseAdapter() {
        override fun getCount() = index.hits?.size ?: 0

        override fun getItem(position: Int) = index.hits.orEmpty()[position]

        override fun getItemId(position: Int) = getItem(position).id()

        override fun getView(position: Int, reused: View?, parent: ViewGroup): View {
            val view = reused ?: LayoutInflater.from(parent.context).inflate(R.layout.hit, parent, false)
            val similarity = "%.2f".format(getItem(position).similarity())
            view.view<TextView>(R.id.value).text = similarity
            view.contentDescription = getString(R.string.hit_description, position + 1, similarity)
            thumbnails.show(getItemId(position), view.view<ImageView>(R.id.thumbnail))
            return view
        }
    }

    private companion object {
        const val REFUSED = "refused"
        const val FOUND = "found"
        const val QUERY = "query"
    }
}
