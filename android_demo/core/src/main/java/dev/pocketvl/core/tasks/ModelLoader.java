package dev.pocketvl.core.tasks;

import dev.pocketvl.core.bundle.Bundle;
import dev.pocketvl.core.engine.Engine;
import dev.pocketvl.core.engine.EngineOptions;
import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.image.ImageProcessor;
import dev.pocketvl.core.manifest.Manifest;
import dev.pocketvl.core.manifest.PortRef;
import dev.pocketvl.core.manifest.Processor;
import dev.pocketvl.core.manifest.Task;
import dev.pocketvl.core.text.Tokenizer;
import java.io.Reader;
import java.io.StringReader;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/** What the tasks of a model share: each component and each tokenizer is loaded once. */
final class ModelLoader implements AutoCloseable {
    private static final int MAX_TOKENIZER_BYTES = 40_000_000;

    private final Bundle bundle;
    private final String variant;
    private final Engine engine;
    private final EngineOptions options;
    private final Map<String, LoadedComponent> components = new LinkedHashMap<>();
    private final Map<String, Processors.Texts> texts = new HashMap<>();

    ModelLoader(Bundle bundle, String variant, Engine engine, EngineOptions options) {
        this.bundle = bundle;
        this.variant = variant;
        this.engine = engine;
        this.options = options;
    }

    Map<String, LoadedComponent> components() {
        return components;
    }

    ContrastiveTask contrastive(Task.Contrastive task) {
        boolean imageFirst = !sources(List.of(task.first()), Processor.Image.class).isEmpty();
        PortRef image = imageFirst ? task.first() : task.second();
        PortRef text = imageFirst ? task.second() : task.first();
        return new ContrastiveTask(
                task,
                imageFirst,
                new ContrastiveTask.ImageEncoder(
                        pictures(List.of(image)), component(image.component()), image.port()),
                new ContrastiveTask.TextEncoder(texts(List.of(text)), component(text.component()), text.port()));
    }

    LabelsTask labels(Task.Labels task) {
        List<PortRef> outputs = List.of(task.logits());
        return new LabelsTask(task, pictures(outputs), texts(outputs), component(task.logits().component()));
    }

    @Override
    public void close() {
        components.values().forEach(LoadedComponent::close);
    }

    private LoadedComponent component(String name) {
        LoadedComponent found = components.get(name);
        if (found == null) {
            found = LoadedComponent.load(bundle, variant, name, engine, options);
            components.put(name, found);
        }
        return found;
    }

    private Processors.Pictures pictures(List<PortRef> outputs) {
        Map.Entry<String, Processor.Image> found =
                sources(outputs, Processor.Image.class).entrySet().iterator().next();
        return new Processors.Pictures(
                found.getKey(), found.getValue().settings(), new ImageProcessor(found.getValue().settings()));
    }

    private Processors.Texts texts(List<PortRef> outputs) {
        Map.Entry<String, Processor.Text> found =
                sources(outputs, Processor.Text.class).entrySet().iterator().next();
        return texts.computeIfAbsent(
                found.getKey(), name -> new Processors.Texts(name, tokenizer(bundle, found.getValue())));
    }

    /** The processors of a kind that fill the inputs of some outputs' components, by name. */
    private <P extends Processor> Map<String, P> sources(List<PortRef> outputs, Class<P> kind) {
        Manifest manifest = bundle.manifest();
        Map<String, P> found = new LinkedHashMap<>();
        for (PortRef ref : outputs) {
            TaskSupport.processors(manifest, Objects.requireNonNull(manifest.components().get(ref.component())))
                    .forEach((name, processor) -> {
                        if (kind.isInstance(processor)) {
                            found.put(name, kind.cast(processor));
                        }
                    });
        }
        return found;
    }

    /** A text processor's tokenizer, from its file in the bundle. */
    static Tokenizer tokenizer(Bundle bundle, Processor.Text processor) {
        ByteBuffer content = bundle.read(processor.file(), MAX_TOKENIZER_BYTES);
        try {
            Reader text = new StringReader(
                    StandardCharsets.UTF_8.newDecoder().decode(content).toString());
            return Tokenizer.open(processor.settings(), text);
        } catch (CharacterCodingException error) {
            throw new BundleException(
                    bundle + "/" + processor.file() + " is not UTF-8; export the bundle again", error);
        }
    }
}
