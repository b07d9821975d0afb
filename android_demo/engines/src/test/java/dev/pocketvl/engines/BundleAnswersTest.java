package dev.pocketvl.engines;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.pocketvl.core.bundle.Bundle;
import dev.pocketvl.core.bundle.FolderSource;
import dev.pocketvl.core.bundle.TestBundles;
import dev.pocketvl.core.engine.Engine;
import dev.pocketvl.core.engine.EngineOptions;
import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.errors.EngineException;
import dev.pocketvl.core.errors.InputException;
import dev.pocketvl.core.errors.PocketVLException;
import dev.pocketvl.core.golden.Golden;
import dev.pocketvl.core.golden.SelfTest;
import dev.pocketvl.core.golden.SelfTestReport;
import dev.pocketvl.core.image.DesktopPictureDecoder;
import dev.pocketvl.core.image.Picture;
import dev.pocketvl.core.json.JsonNumber;
import dev.pocketvl.core.json.Sha256;
import dev.pocketvl.core.tasks.Answers;
import dev.pocketvl.core.tasks.Match;
import dev.pocketvl.core.tasks.Model;
import dev.pocketvl.core.tasks.Score;
import dev.pocketvl.engines.onnx.OnnxEngine;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** The bundles of tests/bundles, computed by ONNX Runtime: they answer as their golden packs say. */
class BundleAnswersTest {
    private static final Engine ENGINE = new OnnxEngine();
    private static final EngineOptions OPTIONS = new EngineOptions(1, EngineOptions.Delegate.CPU);
    private static final DesktopPictureDecoder DECODER = new DesktopPictureDecoder();
    private static final String VARIANT = "onnx-fp32";

    @TempDir
    Path folder;

    private static Model load(Bundle bundle) {
        return Model.load(bundle, VARIANT, ENGINE, OPTIONS);
    }

    private static Picture picture(String name) {
        try {
            return DECODER.decode(Files.readAllBytes(
                    TestBundles.folder("format-2.0").resolve("golden/images").resolve(name)));
        } catch (IOException error) {
            throw new AssertionError(error);
        }
    }

    private static SelfTestReport selfTest(Bundle bundle) {
        return SelfTest.run(bundle, VARIANT, ENGINE, OPTIONS, DECODER);
    }

    private static String failures(SelfTestReport report) {
        return report.stages().stream().flatMap(stage -> stage.failures().stream()).collect(Collectors.joining("\n"));
    }

    @ParameterizedTest
    @CsvSource({"format-2.0,4", "format-2.1,4", "labels-2.0,3", "embed-2.0,0"})
    void theSelfTestPassesStageByStage(String name, int answers) {
        List<String> told = new ArrayList<>();
        SelfTestReport report = SelfTest.run(
                TestBundles.open(name), VARIANT, ENGINE, OPTIONS, DECODER, (done, count, stage) -> {
                    assertTrue(done <= count);
                    told.add(stage.name());
                });
        assertTrue(report.passed(), failures(report));
        assertEquals(report.stages().stream().map(SelfTestReport.Stage::name).collect(Collectors.toList()), told);
        assertEquals(List.of("files", "pixels", "ids", "engine"), told.subList(0, 4));
        assertEquals(
                answers,
                report.stages().stream()
                        .filter(stage -> Set.of("match", "classify", "ask").contains(stage.name()))
                        .mapToInt(SelfTestReport.Stage::checked)
                        .sum());
        assertEquals(List.of(), report.notes());
    }

    @ParameterizedTest
    @ValueSource(strings = {"match", "classify"})
    void aPictureIsHeldAgainstTextsAsTheGoldenPackSays(String task) {
        Bundle bundle = TestBundles.open("format-2.0");
        Golden golden = Golden.read(bundle);
        List<String> texts = golden.inputs().get("text").stream()
                .map(input -> ((Golden.GoldenText) input).text())
                .collect(Collectors.toList());
        try (Model model = load(bundle)) {
            for (Golden.ExpectedAnswer expected : golden.answers().get(task)) {
                String file = ((Golden.GoldenImage)
                                golden.inputs().get("image").get(expected.inputs().get("image")))
                        .file();
                Picture picture = picture(Path.of(file).getFileName().toString());
                Match match = task.equals("match") ? model.match(picture, texts) : model.classify(picture);
                for (int i = 0; i < expected.probability().length; i++) {
                    Score score = match.scores().get(i);
                    assertEquals(expected.similarity()[i], score.similarity(), 1e-5);
                    assertEquals(expected.probability()[i], score.probability(), 1e-4);
                }
                assertEquals(List.of(), match.truncated());
                assertTrue(match.ranked().get(0).probability() >= match.ranked().get(1).probability());
            }
        }
    }

    @Test
    void questionsAreAnsweredAsTheGoldenPackSays() {
        Bundle bundle = TestBundles.open("labels-2.0");
        Golden golden = Golden.read(bundle);
        try (Model model = load(bundle)) {
            for (Golden.ExpectedAnswer expected : golden.answers().get("ask")) {
                Golden.GoldenText question = (Golden.GoldenText)
                        golden.inputs().get("text").get(expected.inputs().get("text"));
                Golden.GoldenImage image = (Golden.GoldenImage)
                        golden.inputs().get("image").get(expected.inputs().get("image"));
                Answers answers =
                        model.ask(picture(Path.of(image.file()).getFileName().toString()), question.text());
                assertEquals(expected.answer(), answers.ranked().get(0).text());
                assertEquals(8, answers.ranked().size());
                assertEquals(1, answers.ranked().stream().mapToDouble(a -> a.probability()).sum(), 1e-12);
            }
            assertEquals(Set.of("ask"), model.tasks());
            assertTrue(refused(BundleException.class, () -> model.embedText("red")).contains("gives no embeddings; it can ask"));
            assertTrue(refused(BundleException.class, () -> model.match(picture("wide.jpg"), List.of("a")))
                    .contains("has no task 'match'; it has ask"));
        }
    }

    @Test
    void anEncoderByItselfEmbedsAsTheGoldenPackSays() {
        Bundle bundle = TestBundles.open("embed-2.0");
        Golden golden = Golden.read(bundle);
        try (Model model = load(bundle)) {
            for (Golden.ExpectedArray expected : golden.outputs().get("image_encoder.embedding")) {
                Golden.GoldenImage image = (Golden.GoldenImage)
                        golden.inputs().get("image").get(expected.inputs().get("image"));
                float[] found =
                        model.embedImage(picture(Path.of(image.file()).getFileName().toString()));
                assertEquals(model.embeddingSize(), found.length);
                for (int i = 0; i < found.length; i++) {
                    assertEquals(expected.values()[i], found[i], 1e-5);
                }
            }
            assertEquals(Set.of("embed"), model.tasks());
            assertEquals("sha256:tiny", model.space());
            assertTrue(refused(BundleException.class, () -> model.embedText("red"))
                    .contains("embeds pictures, and no texts"));
            assertTrue(refused(BundleException.class, () -> model.match(picture("wide.jpg"), List.of("a")))
                    .contains("has no task 'match'; it has embed"));
        }
    }

    @Test
    void stagesAreTimedAndTheBundlesOwnLabelsAreEmbeddedOnce() {
        try (Model model = load(TestBundles.open("format-2.0"))) {
            Match first = model.classify(picture("wide.jpg"));
            Match second = model.classify(picture("wide.jpg"));
            assertEquals(
                    List.of("preprocess", "image", "tokens", "text", "post"),
                    List.copyOf(first.times().nanoseconds().keySet()));
            assertEquals(
                    List.of("preprocess", "image", "post"), List.copyOf(second.times().nanoseconds().keySet()));
            assertTrue(first.times().nanoseconds().values().stream().allMatch(each -> each > 0));
            assertEquals(first.scores(), second.scores());
            assertEquals(
                    first.scores(),
                    model.classify(picture("wide.jpg"), List.of("red cube", "blue ball", "green")).scores());
        }
    }

    @Test
    void embeddingsAreOfTheManifestsSpaceAndSize() {
        try (Model model = load(TestBundles.open("format-2.0"))) {
            assertEquals("sha256:tiny", model.space());
            assertEquals(8, model.embeddingSize());
            assertEquals(8, model.embedImage(picture("tall.png")).length);
            assertEquals(8, model.embedText("green").length);
            assertEquals(Set.of("image_encoder", "text_encoder"), model.placements().keySet());
        }
    }

    @Test
    void aTextThatIsCutIsTold() {
        try (Model model = load(TestBundles.open("format-2.0"))) {
            String longText = "red ".repeat(20).strip();
            assertEquals(List.of(longText), model.match(picture("wide.jpg"), List.of("red", longText)).truncated());
        }
    }

    @Test
    void textsThatCannotBeUsedAreRefused() {
        try (Model model = load(TestBundles.open("format-2.0"))) {
            Picture picture = picture("wide.jpg");
            assertTrue(refused(InputException.class, () -> model.match(picture, List.of())).contains("at least one text"));
            assertTrue(refused(InputException.class, () -> model.match(picture, List.of("a", " \u00a0"))).contains("text 1 is empty"));
            assertTrue(refused(InputException.class, () -> model.embedText("\ud800")).contains("not valid Unicode"));
            assertTrue(refused(InputException.class, () -> model.embedText("x".repeat(250_001))).contains("at most 250000"));
        }
    }

    @Test
    void anotherEngineThanTheVariantsIsRefused() {
        Bundle bundle = TestBundles.open("format-2.0");
        assertTrue(refused(EngineException.class, () -> Model.load(bundle, "tflite-fp32", ENGINE, OPTIONS))
                .contains("needs the engine tflite, which this app does not have"));
        assertTrue(refused(BundleException.class, () -> Model.load(bundle, "onnx-int4", ENGINE, OPTIONS))
                .contains("has no variant 'onnx-int4'"));
    }

    // --- what the self-test must notice

    private Bundle edited(String name, Edit edit) throws IOException {
        Path root = TestBundles.copy(name, folder);
        edit.apply(root);
        return Bundle.open(new FolderSource(root));
    }

    private interface Edit {
        void apply(Path root) throws IOException;
    }

    /** Changes a file of a bundle, and its checksum and size in the manifest with it. */
    private static void replace(Path root, String path, String find, String replacement) throws IOException {
        String text = Files.readString(root.resolve(path));
        assertTrue(text.contains(find), find);
        byte[] content = text.replace(find, replacement).getBytes(StandardCharsets.UTF_8);
        Files.write(root.resolve(path), content);
        TestBundles.edit(root, fields -> {
            Map<String, Object> entry = TestBundles.at(fields, "files", path);
            entry.put("sha256", Sha256.of(ByteBuffer.wrap(content)));
            entry.put("bytes", new JsonNumber(Integer.toString(content.length)));
        });
    }

    private static void assertFails(SelfTestReport report, String stage, String said) {
        assertFalse(report.passed());
        List<String> failed = report.stages().stream()
                .filter(each -> !each.passed())
                .map(SelfTestReport.Stage::name)
                .collect(Collectors.toList());
        assertTrue(failed.contains(stage), failed + "\n" + failures(report));
        assertTrue(failures(report).contains(said), failures(report));
    }

    @Test
    void aDamagedFileIsNamedAndNothingElseIsTried() throws IOException {
        Bundle bundle = edited("format-2.0", root -> Files.write(root.resolve("tokenizer.json"), new byte[3]));
        SelfTestReport report = selfTest(bundle);
        assertFails(report, "files", "tokenizer.json is damaged: 3 bytes, expected 906");
        assertEquals(1, report.stages().size());
    }

    @Test
    void anotherFilterIsNoticedByThePixelsAlone() throws IOException {
        SelfTestReport report = selfTest(edited("format-2.0", root -> TestBundles.edit(root, fields -> {
            List<?> steps = (List<?>) TestBundles.at(fields, "processors", "image").get("steps");
            @SuppressWarnings("unchecked")
            Map<String, Object> resize = (Map<String, Object>) steps.get(0);
            resize.put("filter", "bilinear");
        })));
        assertFails(report, "pixels", "values differ, by up to");
        assertEquals(1, report.stages().stream().filter(stage -> !stage.passed()).count(), failures(report));
    }

    @Test
    void anotherPaddingIsNoticedByTheIds() throws IOException {
        SelfTestReport report = selfTest(edited("format-2.0", root -> TestBundles.edit(
                root, fields -> TestBundles.at(fields, "processors", "text", "pad").put("side", "left"))));
        assertFails(report, "ids", "golden text 0: the token ids differ");
    }

    @Test
    void anotherScaleIsNoticedByTheAnswers() throws IOException {
        SelfTestReport report = selfTest(edited("format-2.0", root -> TestBundles.edit(
                root, fields -> TestBundles.at(fields, "tasks", "match", "scale").put("first", new JsonNumber("30.0")))));
        assertFails(report, "match", "a probability is off by");
    }

    @Test
    void labelsInAnotherOrderAreNoticed() throws IOException {
        SelfTestReport report = selfTest(edited("labels-2.0", root -> TestBundles.edit(root, fields -> {
            @SuppressWarnings("unchecked")
            List<Object> labels = (List<Object>) TestBundles.at(fields, "tasks", "ask").get("labels");
            labels.add(labels.remove(0));
        })));
        assertFails(report, "ask", "is answered, ");
    }

    @Test
    void anotherGraphIsNoticedByTheEngineOrTheOutputs() throws IOException {
        SelfTestReport report = selfTest(edited("format-2.0", root -> TestBundles.edit(root, fields ->
                TestBundles.at(fields, "variants", VARIANT, "files", "image_encoder")
                        .put("file", "graphs/text_encoder.fp32.onnx"))));
        assertFails(report, "engine", "onnx-fp32 image_encoder: ");
    }

    @Test
    void anExpectedArrayThatIsAnotherIsNoticed() throws IOException {
        Bundle whole = TestBundles.open("format-2.0");
        String value = Files.readString(TestBundles.folder("format-2.0").resolve(Golden.FILE));
        int at = value.indexOf("\"values\": [") + "\"values\": [".length();
        String first = value.substring(at, value.indexOf(',', at));
        Bundle bundle = edited(
                "format-2.0", root -> replace(root, Golden.FILE, "\"values\": [" + first, "\"values\": [\n 0.9"));
        assertTrue(selfTest(whole).passed());
        assertFails(selfTest(bundle), "image_encoder.embedding", "cosine");
    }

    @Test
    void aVariantWithoutToleranceIsTold() throws IOException {
        Bundle bundle = edited("format-2.0", root -> replace(root, Golden.FILE, "\"onnx-fp32\"", "\"onnx-fp16\""));
        assertFails(selfTest(bundle), "match", "has no tolerance");
    }

    @Test
    void aPictureThatCannotBeDecodedIsNamedAndTheOthersAreTested() {
        SelfTestReport report = SelfTest.run(
                TestBundles.open("format-2.0"), VARIANT, ENGINE, OPTIONS, file -> {
                    if (file[0] == (byte) 0xFF) {
                        throw new InputException("no JPEG here");
                    }
                    return DECODER.decode(file);
                });
        assertFails(report, "pixels", "golden/images/wide.jpg: no JPEG here");
        assertEquals(1, report.stages().stream().filter(stage -> !stage.passed()).count(), failures(report));
    }

    private static String refused(Class<? extends PocketVLException> kind, Runnable asking) {
        return String.valueOf(assertThrows(kind, asking::run).getMessage());
    }
}
