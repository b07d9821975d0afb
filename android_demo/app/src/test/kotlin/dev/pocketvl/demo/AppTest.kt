package dev.pocketvl.demo

import android.Manifest
import android.os.Bundle
import android.provider.MediaStore
import android.view.View
import android.widget.EditText
import android.widget.GridView
import android.widget.RadioGroup
import com.google.gson.JsonParser
import dev.pocketvl.core.bundle.FolderSource
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertNull
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import java.io.ByteArrayOutputStream
import java.io.File
import java.io.FileNotFoundException
import java.nio.file.Files
import java.nio.file.Path

/** The app as a user goes through it, with real engines; only the system's own screens are played. */
@RunWith(RobolectricTestRunner::class)
class AppTest {
    private val app get() = RuntimeEnvironment.getApplication() as DesktopApplication
    private val matching: Path = DesktopApplication.toys.resolve("format-2.0")
    private val asking: Path = DesktopApplication.toys.resolve("labels-2.0")

    @Before
    fun installBundles() {
        app.install(matching)
        app.install(asking)
    }

    private fun main() = Robolectric.buildActivity(MainActivity::class.java).setup()

    private fun picture(name: String) = matching.resolve("golden/images/$name").toFile().readBytes()

    private fun golden(bundle: Path, task: String) =
        JsonParser.parseString(bundle.resolve("golden/golden.json").toFile().readText()).asJsonObject.run {
            val texts = getAsJsonObject("inputs").getAsJsonArray("text").map { it.asJsonObject.get("text").asString }
            texts to getAsJsonObject("answers").getAsJsonArray(task).map { answer ->
                answer.asJsonObject.getAsJsonArray("probability").map { it.asDouble }
            }
        }

    private fun MainActivity.pick(name: String) {
        click(R.id.choose)
        givePicture(picture(name), name)
        await("the picture") { view<View>(R.id.picture).visibility == View.VISIBLE }
    }

    private fun MainActivity.rank(labels: List<String>) {
        view<EditText>(R.id.labels).setText(labels.joinToString("\n"))
        click(R.id.go)
        await("the ranking") { !demo.question.isWorking }
    }

    private fun MainActivity.answers(): Map<String, String> = view<View>(R.id.answers).texts().chunked(2).associate { it[0] to it[1] }

    @Test
    fun labelsAreRankedAsTorchRanksThem() {
        val screen = main().get()
        screen.pick("tall.png")
        val (texts, expected) = golden(matching, "match")
        screen.rank(texts)
        val byLikelihood = texts.zip(expected[1]).sortedByDescending { it.second }
        assertEquals(byLikelihood.map { it.first }, screen.answers().keys.toList())
        byLikelihood.forEach { (text, probability) ->
            assertEquals(100 * probability, screen.answers().getValue(text).removeSuffix(" %").toDouble(), 0.1 + 0.05)
        }
        val stages = screen.view<View>(R.id.stages).texts().chunked(2).map { it[0] }
        assertEquals(listOf("decode", "preprocess", "image", "tokens", "text", "post", "all"), stages)
        assertTrue(screen.text(R.id.placement), screen.text(R.id.placement).contains("image_encoder: optimised CPU kernels"))
    }

    @Test
    fun aQuestionIsAnsweredAsTorchAnswersIt() {
        val screen = main().get()
        screen.pick("tall.png")
        screen.view<RadioGroup>(R.id.mode).check(R.id.mode_question)
        val (texts, expected) = golden(asking, "ask")
        screen.view<EditText>(R.id.question).setText(texts[1])
        screen.click(R.id.go)
        await("the answer") { screen.answers().isNotEmpty() }
        assertEquals("two", screen.answers().keys.first())
        assertEquals(100 * expected[1].max(), screen.answers().values.first().removeSuffix(" %").toDouble(), 0.06)
    }

    @Test
    fun theSystemsPhotoPickerIsAsked() {
        val screen = main().get()
        screen.click(R.id.choose)
        val intent = shadowOf(screen).nextStartedActivityForResult.intent
        assertEquals(MediaStore.ACTION_PICK_IMAGES, intent.action)
        assertEquals("image/*", intent.type)
    }

    @Test
    fun thePictureThatTheCameraWroteIsTaken() {
        val screen = main().get()
        screen.click(R.id.take)
        val camera = shadowOf(screen).nextStartedActivityForResult
        val target = camera.intent.getParcelableExtra(MediaStore.EXTRA_OUTPUT, android.net.Uri::class.java)!!
        assertEquals(target, camera.intent.clipData!!.getItemAt(0).uri)
        // Where the provider writes; Robolectric cannot hand over the file descriptor itself.
        File(app.cacheDir, "pictures${target.path}").writeBytes(picture("wide.jpg"))
        shadowOf(screen).receiveResult(camera.intent, android.app.Activity.RESULT_OK, null)
        await("the picture") { screen.view<View>(R.id.picture).visibility == View.VISIBLE }
        assertEquals(picture("wide.jpg").toList(), app.question.picture!!.readBytes().toList())
    }

    @Test
    fun aTurnedPhoneShowsTheSameAnswers() {
        val controller = main()
        controller.get().pick("tall.png")
        controller.get().rank(listOf("red cube", "blue ball"))
        val before = controller.get().answers()
        val labels = controller.get().text(R.id.labels)
        RuntimeEnvironment.setQualifiers("+land")
        val turned = controller.recreate().get()
        assertEquals(before, turned.answers())
        assertEquals(labels, turned.text(R.id.labels))
        assertEquals(View.VISIBLE, turned.view<View>(R.id.picture).visibility)
    }

    @Test
    fun anAnswerThatArrivesInTheBackgroundIsThereAfterwards() {
        val controller = main()
        val screen = controller.get()
        screen.pick("tall.png")
        screen.view<EditText>(R.id.labels).setText("red cube\ngreen")
        screen.click(R.id.go)
        controller.pause().stop()
        app.onTrimMemory(android.content.ComponentCallbacks2.TRIM_MEMORY_BACKGROUND) // models are given back after it
        await("the ranking") { !app.question.isWorking }
        controller.restart().start().resume()
        assertEquals(2, screen.answers().size)
        screen.rank(listOf("red cube", "green", "blue ball"))
        assertEquals(3, screen.answers().size)
    }

    @Test
    fun aKilledAppComesBackWithPictureWordsAndAnswers() {
        val killed = main()
        killed.get().pick("tall.png")
        killed.get().rank(listOf("red cube", "blue ball"))
        val before = killed.get().answers()
        val stages = killed.get().view<View>(R.id.stages).texts()
        val state = Bundle()
        killed.saveInstanceState(state).pause().stop().destroy()
        app.forgetSession()
        val screen = Robolectric.buildActivity(MainActivity::class.java).setup(state).get()
        await("the picture") { screen.view<View>(R.id.picture).visibility == View.VISIBLE }
        assertEquals(before, screen.answers())
        assertEquals(stages, screen.view<View>(R.id.stages).texts())
        assertEquals("red cube\nblue ball", screen.text(R.id.labels))
        screen.rank(listOf("green", "blue ball"))
        assertEquals(setOf("green", "blue ball"), screen.answers().keys)
    }

    @Test
    fun whatIsMissingIsSaid() {
        val screen = main().get()
        screen.click(R.id.go)
        assertEquals(screen.getString(R.string.picture_missing), screen.text(R.id.message))
        screen.pick("tall.png")
        screen.click(R.id.go)
        assertEquals(screen.getString(R.string.labels_missing), screen.text(R.id.message))
        screen.rank(List(1000) { "label $it" })
        assertEquals(screen.getString(R.string.labels_too_many, 1000, 200), screen.text(R.id.message))
        screen.rank(listOf("red cube", "blue ".repeat(500)))
        assertTrue(screen.text(R.id.message), screen.text(R.id.message).startsWith("Too long"))
    }

    @Test
    fun anUnreadablePictureIsSaidToBe() {
        val screen = main().get()
        val jpeg = picture("wide.jpg")
        val hostile = mapOf("empty" to ByteArray(0), "text" to "no picture".toByteArray(), "cut" to jpeg.copyOf(jpeg.size / 2))
        hostile.forEach { (name, content) ->
            screen.click(R.id.choose)
            screen.givePicture(content, name)
            await("a message about $name") { screen.text(R.id.message).contains("the picture is damaged") }
            assertNull(app.question.picture)
            app.question.clearOutcome()
        }
    }

    @Test
    fun aRefusedOrVanishedPictureIsSaidToBe() {
        val screen = main().get()
        screen.click(R.id.choose)
        screen.givePicture("refused") { throw SecurityException("no access") }
        await("a message") { screen.text(R.id.message) == screen.getString(R.string.error_permission, "no access") }
        screen.click(R.id.choose)
        screen.givePicture("gone") { throw FileNotFoundException("gone") }
        await("a message") { screen.text(R.id.message) == screen.getString(R.string.error_picture_gone) }
        screen.pick("tall.png")
        app.question.picture!!.delete()
        screen.rank(listOf("red cube"))
        assertEquals(screen.getString(R.string.error_picture_gone), screen.text(R.id.message))
    }

    @Test
    fun noMemoryIsSaidAndTheAppGoesOn() {
        val screen = main().get()
        screen.pick("tall.png")
        app.models.submit({ throw OutOfMemoryError("test") }) { result -> app.question.fail(result.exceptionOrNull()!!) }
        await("the message") { screen.text(R.id.message) == screen.getString(R.string.error_memory) }
        screen.rank(listOf("red cube", "green"))
        assertEquals(2, screen.answers().size)
    }

    @Test
    fun theSelfTestPassesStageByStage() {
        val screen = Robolectric.buildActivity(SelfTestActivity::class.java).setup().get()
        screen.click(R.id.run)
        await("the report") { app.selfTest.report != null }
        assertEquals(screen.getString(R.string.self_test_passed), screen.text(R.id.message).lines().first())
        val rows = screen.view<View>(R.id.rows).texts()
        assertTrue(rows.toString(), rows.any { it.startsWith("pixels") } && rows.any { it.startsWith("match") })
        assertFalse(rows.toString(), rows.contains(screen.getString(R.string.failed)))
    }

    @Test
    fun photosAreIndexedOnceAndFound() {
        shadowOf(app).grantPermissions(Manifest.permission.READ_MEDIA_IMAGES)
        val folder = Files.createTempDirectory("photos").toFile()
        val good = listOf("wide.jpg", "tall.png").map { File(folder, it).apply { writeBytes(picture(it)) } }
        val bad = File(folder, "bad.jpg").apply { writeText("no picture") }
        MediaStoreOfFiles.register(mapOf(7L to good[0], 8L to good[1], 9L to bad))
        val screen = Robolectric.buildActivity(GalleryActivity::class.java).setup().get()
        await("the index") { app.photos.total != null && !app.photos.isRunning }
        assertEquals("2 photos can be searched · 1 could not be read", screen.text(R.id.status).split(" · ").take(2).joinToString(" · "))
        screen.view<EditText>(R.id.query).setText("the blue ball")
        screen.click(R.id.search)
        await("hits") { app.photos.hits != null }
        // Cosines of the golden pack: .5287 and .4935.
        assertEquals(listOf(7L, 8L), app.photos.hits!!.map { it.id() })
        assertEquals(0.52872, app.photos.hits!![0].similarity(), 1e-4)
        assertEquals(2, screen.view<GridView>(R.id.hits).adapter.count)
        MediaStoreOfFiles.register(mapOf(8L to good[1], 10L to good[0])) // one is gone, one is new
        app.photos.start()
        await("the index") { !app.photos.isRunning }
        assertEquals(2, app.photos.indexed)
        app.photos.search("the blue ball")
        await("hits") { app.photos.hits!!.first().id() == 10L }
    }

    @Test
    fun indexingPausesAndGoesOn() {
        shadowOf(app).grantPermissions(Manifest.permission.READ_MEDIA_IMAGES)
        val file = Files.createTempFile("photo", ".png").toFile().apply { writeBytes(picture("tall.png")) }
        MediaStoreOfFiles.register((1L..40L).associateWith { file })
        val screen = Robolectric.buildActivity(GalleryActivity::class.java).setup().get()
        await("a first photo") { app.photos.indexed > 0 }
        screen.click(R.id.pause)
        await("a pause") { app.models.isIdle }
        val paused = app.photos.indexed
        assertTrue("$paused", paused < 40)
        assertTrue(screen.text(R.id.status), screen.text(R.id.status).endsWith("Paused"))
        screen.click(R.id.pause)
        await("the rest") { app.photos.indexed == 40 && !app.photos.isRunning }
        assertEquals(screen.getString(R.string.index_done, 40), screen.text(R.id.status))
    }

    @Test
    fun refusedPermissionIsExplained() {
        val screen = Robolectric.buildActivity(GalleryActivity::class.java).setup().get()
        assertEquals(screen.getString(R.string.photos_why), screen.text(R.id.message))
        screen.click(R.id.allow)
        screen.onRequestPermissionsResult(0, app.photos.library.permissions, intArrayOf(-1, -1))
        assertEquals(screen.getString(R.string.photos_refused), screen.text(R.id.message))
        assertFalse(screen.view<View>(R.id.search).isEnabled)
    }

    @Test
    @Suppress("DEPRECATION")
    fun backLeavesWhatWasFoundFirst() {
        val controller = Robolectric.buildActivity(GalleryActivity::class.java).setup()
        shadowOf(app).grantPermissions(Manifest.permission.READ_MEDIA_IMAGES)
        MediaStoreOfFiles.register(emptyMap())
        app.photos.search("anything")
        await("hits") { app.photos.hits != null }
        controller.get().onBackPressed()
        assertNull(app.photos.hits)
        assertFalse(controller.get().isFinishing)
        controller.get().onBackPressed()
        assertTrue(controller.get().isFinishing)
    }

    @Test
    fun theSampleOfTheDocsAnswers() {
        val (texts, expected) = golden(matching, "match")
        val best = bestLabel(FolderSource(matching), DesktopApplication.desktopEngines, picture("wide.jpg"), texts)
        assertEquals(texts[expected[0].indexOf(expected[0].max())], best)
    }

    @Test
    fun pixelsAreTheFilesOwn() {
        val argb = Pictures.decode(picture("tall.png"))
        val expected = javax.imageio.ImageIO.read(picture("tall.png").inputStream())
        assertEquals(expected.width to expected.height, argb.width() to argb.height())
        val rgb = expected.getRGB(0, 0, expected.width, expected.height, null, 0, expected.width)
        assertEquals(rgb.toList(), argb.argb().toList())
    }

    @Test
    fun opacityIsNotMultipliedIntoColours() {
        val image = java.awt.image.BufferedImage(3, 1, java.awt.image.BufferedImage.TYPE_INT_ARGB)
        val pixels = intArrayOf(0x00ff8040, 0x01c86432, 0x7f102030)
        image.setRGB(0, 0, 3, 1, pixels, 0, 3)
        val png = ByteArrayOutputStream().also { javax.imageio.ImageIO.write(image, "png", it) }.toByteArray()
        assertEquals(pixels.map { "%08x".format(it) }, Pictures.decode(png).argb().map { "%08x".format(it) })
    }
}
