package dev.pocketvl.core.tasks;

import dev.pocketvl.core.bundle.Bundle;
import dev.pocketvl.core.bundle.VariantChoice;
import dev.pocketvl.core.engine.Engine;
import dev.pocketvl.core.engine.EngineOptions;
import dev.pocketvl.core.engine.Placement;
import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.errors.EngineException;
import dev.pocketvl.core.errors.InputException;
import dev.pocketvl.core.image.Picture;
import dev.pocketvl.core.manifest.Manifest;
import dev.pocketvl.core.manifest.PortRef;
import dev.pocketvl.core.manifest.Task;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * One variant of a bundle, loaded and ready to be asked.
 *
 * <p>Not to be used from two threads at once: give it a thread, or a dispatcher of one, of its own. It holds native
 * memory until it is closed.
 */
public final class Model implements AutoCloseable {
    private final Manifest manifest;
    private final String variant;
    private final ModelLoader loaded;
    private final Map<String, ContrastiveTask> contrastive;
    private final Map<String, LabelsTask> labels;
    /** What embeds; null: nothing does. Of a contrastive task, or an encoder by itself. */
    private final ContrastiveTask.@Nullable ImageEncoder images;

    private final ContrastiveTask.@Nullable TextEncoder texts;
    private final @Nullable PortRef embedding;

    private Model(Manifest manifest, String variant, ModelLoader loaded) {
        this.manifest = manifest;
        this.variant = variant;
        this.loaded = loaded;
        contrastive = new LinkedHashMap<>();
        labels = new LinkedHashMap<>();
        PortRef seeing = null;
        PortRef reading = null;
        Map<String, Task> runnable = TaskSupport.runnable(manifest, variant);
        for (Task task : runnable.values()) {
            if (task instanceof Task.Embed found && loaded.sees(found.embedding())) {
                seeing = seeing == null ? found.embedding() : seeing;
            } else if (task instanceof Task.Embed found) {
                reading = reading == null ? found.embedding() : reading;
            }
        }
        runnable.forEach((name, task) -> {
            if (task instanceof Task.Contrastive found) {
                contrastive.put(name, loaded.contrastive(found));
            } else if (task instanceof Task.Labels found) {
                labels.put(name, loaded.labels(found));
            }
        });
        if (contrastive.isEmpty()) {
            images = seeing == null ? null : loaded.imageEncoder(seeing);
            texts = reading == null ? null : loaded.textEncoder(reading);
            embedding = seeing == null ? reading : seeing;
        } else {
            String main = contrastive.containsKey("match") ? "match" : contrastive.keySet().iterator().next();
            images = contrastive.get(main).images();
            texts = contrastive.get(main).texts();
            embedding = ((Task.Contrastive) runnable.get(main)).first();
        }
    }

    /**
     * Loads the components and processors of the tasks that this library can run.
     *
     * @param bundle opened
     * @param variant which one; {@link VariantChoice#preferred} knows which to take by default
     * @param engine that runs it; {@link VariantChoice#engineFor} finds it among several
     * @param options threads and delegate
     * @throws BundleException there is no such variant, a file is damaged, or no task can be run
     * @throws EngineException the engine is another or too old, or refuses a graph
     */
    public static Model load(Bundle bundle, String variant, Engine engine, EngineOptions options) {
        Manifest manifest = bundle.manifest();
        VariantChoice.engineFor(manifest, variant, List.of(engine));
        if (TaskSupport.runnable(manifest, variant).isEmpty()) {
            for (String name : manifest.tasks().keySet()) {
                throw TaskSupport.refuse(manifest, variant, name);
            }
            throw new BundleException(bundle + " has no task; export the bundle again");
        }
        ModelLoader loader = new ModelLoader(bundle, variant, engine, options);
        try {
            return new Model(manifest, variant, loader);
        } catch (RuntimeException error) {
            loader.close();
            throw error;
        }
    }

    /** What the bundle says of itself. */
    public Manifest manifest() {
        return manifest;
    }

    /** Which variant it is. */
    public String variant() {
        return variant;
    }

    /** The names of the tasks that can be asked, of {@code match}, {@code classify}, {@code ask} and others. */
    public Set<String> tasks() {
        return TaskSupport.runnable(manifest, variant).keySet();
    }

    /** By component, what took its graph and why not what was asked for. */
    public Map<String, Placement> placements() {
        Map<String, Placement> found = new LinkedHashMap<>();
        loaded.components().forEach((name, component) -> found.put(name, component.placement()));
        return found;
    }

    /**
     * How well each text fits a picture.
     *
     * @throws InputException the picture or a text cannot be used, or there is no text
     * @throws BundleException the bundle has no such task
     * @throws EngineException the engine failed
     */
    public Match match(Picture picture, List<String> texts) {
        return named(contrastive, "match").match(picture, texts);
    }

    /**
     * How well each of the bundle's own labels fits a picture. Their embeddings are computed at the first call and
     * kept, so that later ones have no stages {@code tokens} and {@code text}.
     *
     * @throws InputException the picture cannot be used, or the bundle has no labels
     * @throws BundleException the bundle has no such task
     * @throws EngineException the engine failed
     */
    public Match classify(Picture picture) {
        return named(contrastive, "classify").classify(picture);
    }

    /** How well each label, in the bundle's template, fits a picture; throws what {@link #match} does. */
    public Match classify(Picture picture, List<String> labels) {
        return named(contrastive, "classify").classify(picture, labels);
    }

    /**
     * The answers to a question about a picture, the likeliest first.
     *
     * @throws InputException the picture or the question cannot be used
     * @throws BundleException the bundle has no such task
     * @throws EngineException the engine failed
     */
    public Answers ask(Picture picture, String question) {
        return named(labels, "ask").ask(picture, question);
    }

    /**
     * A picture's embedding, L2-normalised; to be compared with others of the same {@link #space}.
     *
     * @throws InputException the picture cannot be used
     * @throws BundleException the model gives no embeddings of pictures
     * @throws EngineException the engine failed
     */
    public float[] embedImage(Picture picture) {
        return embedding(images, "embeds texts, and no pictures").embed(picture, new StageClock());
    }

    /** A text's embedding, likewise. */
    public float[] embedText(String text) {
        ContrastiveTask.TextEncoder encoder = embedding(texts, "embeds pictures, and no texts");
        Texts.check("text", text);
        return encoder.embed(text, new StageClock()).values();
    }

    /** The space that embeddings lie in; null: the model gives none. */
    public @Nullable String space() {
        return embedding == null ? null : manifest.output(embedding).space();
    }

    /** How many numbers an embedding has; 0: the model gives none. */
    public int embeddingSize() {
        return embedding == null ? 0 : manifest.output(embedding).shape().get(1).value();
    }

    /**
     * Runs one component, below all tasks.
     *
     * @param component its name
     * @param made what the processors made of what is asked about
     * @return its float outputs by name, row-major
     * @throws BundleException it is not loaded, since no task that can be run needs it
     */
    public Map<String, float[]> run(String component, Features... made) {
        LoadedComponent found = loaded.components().get(component);
        if (found == null) {
            throw new BundleException("variant " + variant + " has no " + component
                    + " that a task of this library needs; it has " + loaded.components().keySet());
        }
        return found.run(made);
    }

    @Override
    public void close() {
        loaded.close();
    }

    private <T> T named(Map<String, T> tasks, String name) {
        T found = tasks.get(name);
        if (found == null) {
            throw TaskSupport.refuse(manifest, variant, name);
        }
        return found;
    }

    private <T> T embedding(@Nullable T encoder, String otherwise) {
        if (encoder != null) {
            return encoder;
        }
        throw new BundleException(manifest.name()
                + (embedding == null
                        ? " gives no embeddings; it can " + String.join(", ", tasks())
                        : " " + otherwise));
    }
}
