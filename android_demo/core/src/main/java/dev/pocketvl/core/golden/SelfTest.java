package dev.pocketvl.core.golden;

import dev.pocketvl.core.bundle.Bundle;
import dev.pocketvl.core.engine.Engine;
import dev.pocketvl.core.engine.EngineOptions;
import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.errors.EngineException;
import dev.pocketvl.core.errors.PocketVLException;
import dev.pocketvl.core.golden.SelfTestReport.Stage;
import dev.pocketvl.core.image.PictureDecoder;
import dev.pocketvl.core.manifest.Manifest;
import dev.pocketvl.core.manifest.PortRef;
import dev.pocketvl.core.manifest.Task;
import dev.pocketvl.core.tasks.Model;
import dev.pocketvl.core.tasks.TaskSupport;
import java.util.ArrayList;
import java.util.List;

/** Does this machine give the answers that a bundle promises? Stage by stage, so that the one that is off is named. */
public final class SelfTest {
    private final Bundle bundle;
    private final Golden golden;
    private final Progress progress;
    private final List<Stage> stages = new ArrayList<>();
    private final int count;

    /** Is told how far a self-test has come. */
    @FunctionalInterface
    public interface Progress {
        /**
         * A stage was done.
         *
         * @param done how many
         * @param count of at most how many
         * @param stage the last one
         */
        void stageDone(int done, int count, Stage stage);
    }

    private SelfTest(Bundle bundle, Golden golden, Progress progress) {
        this.bundle = bundle;
        this.golden = golden;
        this.progress = progress;
        count = 4 + golden.outputs().size() + golden.answers().size();
    }

    /** Runs a self-test without telling of its progress. */
    public static SelfTestReport run(
            Bundle bundle, String variant, Engine engine, EngineOptions options, PictureDecoder decoder) {
        return run(bundle, variant, engine, options, decoder, (done, count, stage) -> {});
    }

    /**
     * Checks every file's checksum, then what becomes of the golden pack: pixels, ids, outputs of components, answers.
     * What fails is in the report.
     *
     * @param bundle opened
     * @param variant which one
     * @param engine that runs it
     * @param options threads and delegate
     * @param decoder of the pack's JPEG and PNG files
     * @param progress told after every stage
     * @throws BundleException there is no such variant, or no golden pack that can be read
     */
    public static SelfTestReport run(
            Bundle bundle,
            String variant,
            Engine engine,
            EngineOptions options,
            PictureDecoder decoder,
            Progress progress) {
        bundle.manifest().variant(variant);
        Stage files = checkFiles(bundle);
        if (!files.passed()) {
            progress.stageDone(1, 1, files);
            return new SelfTestReport(variant, List.of(files), List.of());
        }
        SelfTest test = new SelfTest(bundle, Golden.read(bundle), progress);
        test.add(files);
        GoldenInputs inputs = new GoldenInputs(bundle, test.golden, decoder);
        test.add(inputs.pixels());
        test.add(inputs.ids());
        test.checkVariant(variant, engine, options, inputs);
        return new SelfTestReport(variant, test.stages, test.notes());
    }

    private void add(Stage stage) {
        stages.add(stage);
        progress.stageDone(stages.size(), count, stage);
    }

    private static Stage checkFiles(Bundle bundle) {
        List<String> failures = new ArrayList<>();
        for (String path : bundle.manifest().files().keySet()) {
            try {
                bundle.read(path);
            } catch (PocketVLException error) {
                failures.add(String.valueOf(error.getMessage()));
            }
        }
        return new Stage("files", bundle.manifest().files().size(), "", failures);
    }

    private void checkVariant(String variant, Engine engine, EngineOptions options, GoldenInputs inputs) {
        Manifest manifest = bundle.manifest();
        try (Model model = Model.load(bundle, variant, engine, options)) {
            add(new Stage("engine", model.placements().size(), engine.name() + " " + engine.version(), List.of()));
            GoldenOutputs outputs = new GoldenOutputs(model, golden, inputs);
            golden.outputs().forEach((port, arrays) -> {
                if (model.placements().containsKey(PortRef.of(port).component())) {
                    add(outputs.check(port, arrays));
                }
            });
            GoldenAnswers answers = new GoldenAnswers(model, golden, inputs, outputs);
            for (String task : model.tasks()) {
                if (!(manifest.tasks().get(task) instanceof Task.Embed)) { // its answers are the outputs
                    add(answers.check(task));
                }
            }
        } catch (EngineException | BundleException error) {
            add(new Stage("engine", 0, "", List.of(String.valueOf(error.getMessage()))));
        }
        missing(manifest);
    }

    /** What stands in the manifest and has nothing in the golden pack that would prove it. */
    private void missing(Manifest manifest) {
        List<String> failures = new ArrayList<>();
        for (String name : manifest.processors().keySet()) {
            if (golden.inputs().getOrDefault(name, List.of()).isEmpty()) {
                failures.add("the golden pack has no input of processor '" + name + "'; export the bundle again");
            }
        }
        if (!failures.isEmpty()) {
            add(new Stage("golden pack", golden.inputs().size(), "", failures));
        }
    }

    private List<String> notes() {
        List<String> notes = new ArrayList<>();
        bundle.manifest().tasks().forEach((name, task) -> {
            String obstacle = TaskSupport.obstacle(bundle.manifest(), task);
            if (obstacle != null) {
                notes.add("task '" + name + "' is not checked: this library cannot run " + obstacle);
            }
        });
        return notes;
    }
}
