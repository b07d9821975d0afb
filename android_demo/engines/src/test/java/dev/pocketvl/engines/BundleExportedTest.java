package dev.pocketvl.engines;

import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.pocketvl.core.bundle.Bundle;
import dev.pocketvl.core.bundle.FolderSource;
import dev.pocketvl.core.bundle.VariantChoice;
import dev.pocketvl.core.engine.Engine;
import dev.pocketvl.core.engine.EngineOptions;
import dev.pocketvl.core.golden.SelfTest;
import dev.pocketvl.core.golden.SelfTestReport;
import dev.pocketvl.core.image.DesktopPictureDecoder;
import dev.pocketvl.engines.onnx.OnnxEngine;
import dev.pocketvl.engines.tflite.DesktopTflite;
import java.io.File;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.TestFactory;

/**
 * The self-test of exported bundles, with every variant that ONNX Runtime and, where its library is there, TFLite run: {@code -Dpocketvl.bundles=A:B} names
 * their folders.
 */
class BundleExportedTest {
    private static final String PROPERTY = "pocketvl.bundles";

    @TestFactory
    Stream<DynamicTest> theSelfTestPasses() {
        String folders = System.getProperty(PROPERTY, "");
        assumeTrue(!folders.isEmpty(), "no exported bundle was named by -D" + PROPERTY);
        List<Engine> engines = new ArrayList<>(List.of(new OnnxEngine()));
        if (!System.getProperty("pocketvl.tflite.library", "").isEmpty()) {
            engines.add(DesktopTflite.engine());
        }
        List<DynamicTest> tests = new ArrayList<>();
        for (String folder : folders.split(File.pathSeparator)) {
            Bundle bundle = Bundle.open(new FolderSource(Path.of(folder)));
            for (String variant : VariantChoice.runnable(bundle.manifest(), engines)) {
                Engine engine = VariantChoice.engineFor(bundle.manifest(), variant, engines);
                tests.add(DynamicTest.dynamicTest(
                        bundle.manifest().name() + " " + variant, () -> test(bundle, variant, engine)));
            }
        }
        return tests.stream();
    }

    private static void test(Bundle bundle, String variant, Engine engine) {
        EngineOptions options = new EngineOptions(1, EngineOptions.Delegate.CPU);
        SelfTestReport report = SelfTest.run(bundle, variant, engine, options, new DesktopPictureDecoder());
        StringBuilder said = new StringBuilder(bundle.manifest().name() + " " + variant);
        for (SelfTestReport.Stage stage : report.stages()) {
            said.append("\n  ").append(stage.name()).append(": ").append(stage.checked()).append(' ').append(stage.measured());
            stage.failures().forEach(failure -> said.append("\n    ").append(failure));
        }
        System.out.println(said);
        assertTrue(report.passed(), said.toString());
    }
}
