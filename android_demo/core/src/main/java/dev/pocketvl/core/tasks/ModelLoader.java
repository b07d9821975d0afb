package dev.pocketvl.core.tasks;

import dev.pocketvl.core.bundle.Bundle;
import dev.pocketvl.core.engine.Engine;
import dev.pocketvl.core.engine.EngineOptions;
import dev.pocketvl.core.manifest.Component;
import dev.pocketvl.core.manifest.Manifest;
import dev.pocketvl.core.manifest.PortRef;
import dev.pocketvl.core.manifest.Processor;
import dev.pocketvl.core.manifest.Task;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Objects;
import java.util.Set;

/** What the tasks of a model share: each component and each tokenizer is loaded once. */
final class ModelLoader implements AutoCloseable {
    private final Bundle bundle;
    private final String variant;
    private final Engine engine;
    private final EngineOptions options;
    private final Map<String, LoadedComponent> components = new LinkedHashMap<>();
    private final Processors processors;

    ModelLoader(Bundle bundle, String variant, Engine engine, EngineOptions options) {
        this.bundle = bundle;
        this.variant = variant;
        this.engine = engine;
        this.options = options;
        processors = new Processors(bundle);
    }

    Map<String, LoadedComponent> components() {
        return components;
    }

    ContrastiveTask contrastive(Task.Contrastive task) {
        boolean imageFirst = sees(task.first());
        PortRef image = imageFirst ? task.first() : task.second();
        PortRef text = imageFirst ? task.second() : task.first();
        return new ContrastiveTask(task, imageFirst, imageEncoder(image), textEncoder(text));
    }

    /** Whether an output's component takes pictures. */
    boolean sees(PortRef output) {
        return !sources(output, Processor.Image.class).isEmpty();
    }

    ContrastiveTask.ImageEncoder imageEncoder(PortRef image) {
        return new ContrastiveTask.ImageEncoder(
                processors, processor(image, Processor.Image.class), component(image), image.port());
    }

    ContrastiveTask.TextEncoder textEncoder(PortRef text) {
        return new ContrastiveTask.TextEncoder(
                processors, processor(text, Processor.Text.class), component(text), text.port());
    }

    LabelsTask labels(Task.Labels task) {
        PortRef logits = task.logits();
        return new LabelsTask(
                task,
                processors,
                processor(logits, Processor.Image.class),
                processor(logits, Processor.Text.class),
                component(logits));
    }

    @Override
    public void close() {
        components.values().forEach(LoadedComponent::close);
    }

    private LoadedComponent component(PortRef output) {
        String name = output.component();
        LoadedComponent found = components.get(name);
        if (found == null) {
            found = LoadedComponent.load(bundle, variant, name, engine, options);
            components.put(name, found);
        }
        return found;
    }

    /** The name of the processor of a kind that fills inputs of an output's component, ready to use. */
    private String processor(PortRef output, Class<? extends Processor> kind) {
        String name = sources(output, kind).iterator().next();
        processors.prepare(name);
        return name;
    }

    private Set<String> sources(PortRef output, Class<? extends Processor> kind) {
        Manifest manifest = bundle.manifest();
        Component component = Objects.requireNonNull(manifest.components().get(output.component()));
        Map<String, Processor> found = TaskSupport.processors(manifest, component);
        found.values().removeIf(processor -> !kind.isInstance(processor));
        return found.keySet();
    }
}
