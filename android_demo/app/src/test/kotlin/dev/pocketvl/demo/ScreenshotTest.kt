package dev.pocketvl.demo

import android.Manifest
import android.view.View
import android.widget.EditText
import android.widget.RadioGroup
import android.widget.ScrollView
import org.junit.Assume.assumeTrue
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.ParameterizedRobolectricTestRunner
import org.robolectric.Robolectric
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import java.io.File
import java.nio.file.Paths

/**
 * Pictures of every screen, light and dark, with the models of the demo and scenes that they know; to be looked at. Wants
 * `-Dpocketvl.bundles=.../tabletop-clip:.../tabletop-vilt` and `-Dpocketvl.scenes` (a folder of scenes).
 */
@RunWith(ParameterizedRobolectricTestRunner::class)
@Config(qualifiers = "w411dp-h891dp-xhdpi")
class ScreenshotTest(private val theme: String) {
    private val app get() = RuntimeEnvironment.getApplication() as DesktopApplication
    private val bundles = System.getProperty("pocketvl.bundles").orEmpty().split(':').filter(String::isNotEmpty)
    private val scenes = File(System.getProperty("pocketvl.scenes").orEmpty())

    @Before
    fun prepare() {
        assumeTrue("no -Dpocketvl.bundles: no picture is taken", bundles.isNotEmpty() && scenes.isDirectory)
        RuntimeEnvironment.setQualifiers("+$theme")
        bundles.forEach { app.install(Paths.get(it)) }
    }

    private fun scenes() = scenes.walk().filter { it.extension in setOf("png", "jpg") }.sorted().take(30).toList()

    private fun main(): MainActivity {
        val screen = Robolectric.buildActivity(MainActivity::class.java).setup().get()
        screen.click(R.id.choose)
        screen.givePicture(scenes()[2].readBytes())
        await("the picture") { screen.view<View>(R.id.picture).visibility == View.VISIBLE }
        return screen
    }

    @Test
    fun start() = Robolectric.buildActivity(MainActivity::class.java).setup().get().screenshot("start-$theme")

    @Test
    fun labels() {
        val screen = main()
        screen.view<EditText>(R.id.labels).setText("a blue ring\na purple star\na red circle\na yellow heart")
        screen.click(R.id.go)
        await("the ranking") { !app.question.isWorking }
        screen.screenshot("labels-$theme")
        screen.view<ScrollView>(R.id.scroll).run { scrollTo(0, getChildAt(0).height) }
        screen.screenshot("latency-$theme")
    }

    @Test
    fun question() {
        val screen = main()
        screen.view<RadioGroup>(R.id.mode).check(R.id.mode_question)
        screen.view<EditText>(R.id.question).setText("what colour is the circle?")
        screen.click(R.id.go)
        await("the answer") { !app.question.isWorking }
        screen.screenshot("question-$theme")
    }

    @Test
    fun largeFonts() {
        RuntimeEnvironment.setFontScale(1.8f)
        val screen = main()
        screen.view<EditText>(R.id.labels).setText("a red circle\na blue square")
        screen.click(R.id.go)
        await("the ranking") { !app.question.isWorking }
        screen.screenshot("large-fonts-$theme")
    }

    @Test
    fun gallery() {
        val asking = Robolectric.buildActivity(GalleryActivity::class.java).setup()
        asking.get().screenshot("photos-asking-$theme")
        asking.pause().stop().destroy()
        shadowOf(app).grantPermissions(Manifest.permission.READ_MEDIA_IMAGES)
        MediaStoreOfFiles.register(scenes().withIndex().associate { (i, file) -> 1L + i to file })
        val screen = Robolectric.buildActivity(GalleryActivity::class.java).setup().get()
        await("half of the index") { app.photos.indexed > 12 }
        screen.view<EditText>(R.id.query).setText("a red circle")
        screen.click(R.id.search)
        await("hits") { app.photos.hits != null }
        repeat(3) {
            screen.screenshot("photos-$theme")
            Thread.sleep(500) // thumbnails
        }
    }

    @Test
    fun selfTest() {
        val screen = Robolectric.buildActivity(SelfTestActivity::class.java).setup().get()
        screen.click(R.id.run)
        await("the report") { !app.selfTest.isRunning }
        screen.screenshot("self-test-$theme")
    }

    @Test
    fun bench() {
        val screen = Robolectric.buildActivity(BenchActivity::class.java).setup().get()
        screen.click(R.id.run)
        await("the result") { !app.bench.isRunning }
        screen.screenshot("bench-$theme")
    }

    companion object {
        @JvmStatic
        @ParameterizedRobolectricTestRunner.Parameters(name = "{0}")
        fun themes() = listOf("notnight", "night")
    }
}
