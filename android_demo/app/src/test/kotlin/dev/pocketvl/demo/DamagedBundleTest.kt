package dev.pocketvl.demo

import android.view.View
import android.widget.EditText
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import java.io.File
import java.nio.file.Files
import java.nio.file.Path

/** What a user is told of bundles that are not as they were exported. */
@RunWith(RobolectricTestRunner::class)
class DamagedBundleTest {
    private val app get() = RuntimeEnvironment.getApplication() as DesktopApplication

    private fun copy(name: String = "format-2.0"): Path {
        val folder = Files.createTempDirectory("bundle").resolve(name)
        DesktopApplication.toys.resolve(name).toFile().copyRecursively(folder.toFile())
        return folder
    }

    private fun messageAfterRanking(): String {
        val screen = Robolectric.buildActivity(MainActivity::class.java).setup().get()
        screen.click(R.id.choose)
        screen.givePicture(DesktopApplication.toys.resolve("format-2.0/golden/images/tall.png").toFile().readBytes())
        await("the picture") { screen.view<View>(R.id.picture).visibility == View.VISIBLE }
        screen.view<EditText>(R.id.labels).setText("red cube")
        screen.click(R.id.go)
        await("a message") { !app.question.isWorking && screen.text(R.id.message).isNotEmpty() }
        return screen.text(R.id.message)
    }

    @Test
    fun noBundleAtAll() = assertEquals(app.getString(R.string.error_no_bundles), messageAfterRanking())

    @Test
    fun noBundleForTheTask() {
        app.install(copy("labels-2.0"))
        assertEquals(app.getString(R.string.error_no_task), messageAfterRanking())
    }

    @Test
    fun aFlippedBitInTheManifest() {
        val bundle = copy()
        DesktopApplication.toys.resolve("flipped-bit/manifest.json").toFile().copyTo(bundle.resolve("manifest.json").toFile(), overwrite = true)
        app.install(bundle)
        val message = messageAfterRanking()
        assertTrue(message, message.startsWith("The model of this app is damaged or missing") && message.contains("manifest_sha256"))
    }

    @Test
    fun aNewerFormat() {
        app.install(copy("format-3.0"))
        val message = messageAfterRanking()
        assertTrue(message, message.contains("install a newer version"))
    }

    @Test
    fun aWrongChecksum() {
        val bundle = copy()
        for (graph in bundle.resolve("graphs").toFile().listFiles().orEmpty()) { // whichever engine is taken
            graph.writeBytes(graph.readBytes().also { it[it.size / 2] = (it[it.size / 2] + 1).toByte() })
        }
        app.install(bundle)
        val message = messageAfterRanking()
        assertTrue(message, message.contains("sha256") && message.contains("install the app again"))
    }

    @Test
    fun aMissingModel() {
        val bundle = copy()
        bundle.resolve("graphs").toFile().listFiles().orEmpty().forEach(File::delete)
        app.install(bundle)
        val message = messageAfterRanking()
        assertTrue(message, message.contains("no variant whose files are in this app"))
    }

    @Test
    fun aTokenizerThatIsNone() {
        val bundle = copy()
        bundle.resolve("tokenizer.json").toFile().writeText("{}")
        app.install(bundle)
        val message = messageAfterRanking()
        assertTrue(message, message.startsWith("The model of this app is damaged or missing"))
    }
}
