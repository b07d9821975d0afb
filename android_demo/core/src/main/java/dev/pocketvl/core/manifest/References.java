package dev.pocketvl.core.manifest;

import dev.pocketvl.core.engine.DType;
import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.errors.Quoted;
import dev.pocketvl.core.json.JsonValue;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.stream.Collectors;
import org.jspecify.annotations.Nullable;

/** What must hold between the parts of a manifest; every message begins with the key. */
final class References {
    private static final int MAX_TOKENIZER_BYTES = 40_000_000;
    private static final long MAX_LABELS_TOKENS = 1L << 26; // of all labels, padding included

    private final Manifest manifest;

    private References(Manifest manifest) {
        this.manifest = manifest;
    }

    /** Refuses a manifest whose parts do not fit each other. */
    static void check(Manifest manifest) {
        References references = new References(manifest);
        manifest.files().keySet().forEach(Names::checkRelativePath);
        manifest.processors().forEach(references::checkProcessor);
        manifest.components().forEach(references::checkComponent);
        manifest.variants().forEach(references::checkVariant);
        manifest.tasks().forEach(references::checkTask);
    }

    private void checkProcessor(String name, Processor processor) {
        Names.check("processors:", name);
        if (!(processor instanceof Processor.Text text)) {
            return;
        }
        FileEntry entry = manifest.files().get(text.file());
        if (entry == null) {
            throw new BundleException(
                    "processors." + name + ".file " + Quoted.quoted(text.file()) + " is not among files");
        }
        if (entry.bytes() > MAX_TOKENIZER_BYTES) {
            throw new BundleException("files." + text.file() + " has " + entry.bytes() + " bytes, and at most "
                    + MAX_TOKENIZER_BYTES + " are read");
        }
    }

    private void checkComponent(String name, Component component) {
        Names.check("graphs:", name);
        for (Port port : component.inputs()) {
            String from = port.from();
            if (from != null) {
                checkSource("graphs." + name + ": " + shown(port) + " is from " + Quoted.quoted(from), port, from);
            }
        }
    }

    /** Holds an input against the processor or the output that fills it. */
    private void checkSource(String said, Port port, String from) {
        if (from.contains(".")) {
            Port output = find(PortRef.of(from));
            if (output == null) {
                throw new BundleException(said + ", which is no output of graphs");
            }
            if (output.kind() != port.kind() || output.dtype() != port.dtype() || !fits(port.shape(), output.shape())) {
                throw new BundleException(said + ", which gives " + shown(output));
            }
            return;
        }
        Processor processor = manifest.processors().get(from);
        if (processor == null) {
            throw new BundleException(said + ", which is none of processors");
        }
        Made made = given(processor).get(port.kind());
        if (made == null || made.dtype() != port.dtype() || !made.fits(port.shape())) {
            throw new BundleException(said + ", which gives " + given(processor).entrySet().stream()
                    .map(each -> JsonValue.label(each.getKey()) + " " + each.getValue())
                    .collect(Collectors.joining(", ")));
        }
    }

    /** Whether an output goes into an input: a size that has a name takes any, and may be any. */
    private static boolean fits(List<Size> wanted, List<Size> given) {
        boolean fits = wanted.size() == given.size();
        for (int i = 0; fits && i < given.size(); i++) {
            fits = !wanted.get(i).isFixed()
                    || !given.get(i).isFixed()
                    || wanted.get(i).value() == given.get(i).value();
        }
        return fits;
    }

    /** What a processor fills an input with. */
    private record Made(DType dtype, List<Integer> shape) {
        /** Whether it goes into an input: a size that has a name takes any. */
        boolean fits(List<Size> wanted) {
            boolean fits = wanted.size() == shape.size();
            for (int i = 0; fits && i < shape.size(); i++) {
                fits = !wanted.get(i).isFixed() || wanted.get(i).value() == shape.get(i);
            }
            return fits;
        }

        @Override
        public String toString() {
            return dtype.label() + " " + shape;
        }
    }

    private static Map<PortKind, Made> given(Processor processor) {
        Map<PortKind, Made> given = new LinkedHashMap<>();
        if (processor instanceof Processor.Image image) {
            List<Integer> shape = List.of(1, image.settings().height(), image.settings().width(), 3);
            given.put(PortKind.PIXELS, new Made(DType.UINT8, shape));
        } else if (processor instanceof Processor.Text text) {
            Made ids = new Made(DType.INT32, List.of(1, text.settings().maxLength()));
            given.put(PortKind.TOKEN_IDS, ids);
            given.put(PortKind.ATTENTION_MASK, ids);
        } else if (processor instanceof Processor.Audio audio) {
            given.put(PortKind.AUDIO_FEATURES, new Made(DType.FLOAT32, audio.shape()));
        }
        return given;
    }

    private void checkVariant(String name, Variant variant) {
        if (!name.equals(variant.name())) {
            throw new BundleException("variants." + Quoted.shortened(name, 100) + " has the engine and precision of '"
                    + variant.name() + "'");
        }
        variant.files().forEach((component, stored) -> {
            String where = "variants." + name + ".files." + Quoted.shortened(component, 60);
            Component contract = component(where, component);
            if (!manifest.files().containsKey(stored.file())) {
                throw new BundleException(where + ".file " + Quoted.quoted(stored.file()) + " is not among files");
            }
            if (stored.weights() != null && !manifest.files().containsKey(stored.weights())) {
                throw new BundleException(
                        where + ".weights " + Quoted.quoted(stored.weights()) + " is not among files");
            }
            if (stored.weights() != null && variant.engine() != Variant.EngineKind.ONNX) {
                throw new BundleException(where + ".weights goes with graphs of ONNX, and of no other engine");
            }
            List<Port> ports = new ArrayList<>(contract.inputs());
            ports.addAll(contract.outputs());
            for (String port : stored.ports().keySet()) {
                if (ports.stream().noneMatch(each -> each.name().equals(port))) {
                    throw new BundleException(
                            where + ".ports names [" + Quoted.quoted(port) + "], which the component has not");
                }
            }
        });
        for (Variant.Comparable comparable : variant.comparable()) {
            comparable.centredCosineMedian().keySet().forEach(
                    component -> component("variants." + name + ".comparable", component));
        }
    }

    private void checkTask(String name, Task task) {
        Names.check("tasks:", name);
        String where = "tasks." + name;
        if (task instanceof Task.Contrastive contrastive) {
            checkContrastive(where, contrastive);
        } else if (task instanceof Task.Labels labels) {
            Port port = output(where + ".logits", labels.logits(), PortKind.CLASS_LOGITS);
            int count = labels.labels().size();
            if (!port.dtype().isFloat() || !port.shape().equals(List.of(new Size(1, null), new Size(count, null)))) {
                throw new BundleException(where + ": " + count + " labels stand for the logits " + shown(port));
            }
        } else if (task instanceof Task.Embed embed) {
            checkEmbedding(where + ".embedding", output(where + ".embedding", embed.embedding(), PortKind.EMBEDDING));
        } else if (task instanceof Task.Matching matching) {
            checkMatching(where, matching);
        } else if (task instanceof Task.Generate generate) {
            output(where + ".logits", generate.logits(), PortKind.TOKEN_LOGITS);
            generate.components().forEach(component -> component(where, component));
        }
    }

    private void checkMatching(String where, Task.Matching task) {
        Port port = output(where + ".logits", task.logits(), PortKind.CLASS_LOGITS);
        if (!port.dtype().isFloat()
                || port.shape().size() != 2
                || !port.shape().get(0).equals(new Size(1, null))) {
            throw new BundleException(where + ".logits is " + shown(port) + ", and one float [1, N] is wanted");
        }
        int last = port.shape().get(1).value();
        if (task.positiveIndex() < 0 || task.positiveIndex() >= last) {
            throw new BundleException(where + ".positive_index is none of the logits " + shown(port));
        }
        if (task.reranks() != null && !manifest.tasks().containsKey(task.reranks())) {
            throw new BundleException(
                    where + ".reranks is " + Quoted.quoted(task.reranks()) + ", which is none of tasks");
        }
    }

    private void checkContrastive(String where, Task.Contrastive task) {
        Port first = output(where + ".first", task.first(), PortKind.EMBEDDING);
        Port second = output(where + ".second", task.second(), PortKind.EMBEDDING);
        if (task.first().equals(task.second())) {
            throw new BundleException(
                    where + ": first and second are both " + Quoted.quoted(task.first().toString()));
        }
        checkEmbedding(where + ".first", first);
        if (!second.dtype().isFloat() || !first.shape().equals(second.shape())) {
            throw new BundleException(
                    where + ": its embeddings differ: " + shown(first) + " and " + shown(second));
        }
        if (!Objects.equals(first.space(), second.space())) {
            throw new BundleException(where + ": its embeddings lie in two spaces, and no cosine means anything");
        }
        int longest = manifest.processors().values().stream()
                .mapToInt(each -> each instanceof Processor.Text text ? text.settings().maxLength() : 0)
                .max()
                .orElse(0);
        int count = task.labels() == null ? 0 : task.labels().size();
        if ((long) count * longest > MAX_LABELS_TOKENS) {
            throw new BundleException(where + ".labels: " + count + " have " + (long) count * longest
                    + " tokens, and at most " + MAX_LABELS_TOKENS + " are read");
        }
    }

    private static void checkEmbedding(String where, Port port) {
        if (!port.dtype().isFloat()
                || port.shape().size() != 2
                || !port.shape().get(0).equals(new Size(1, null))) {
            throw new BundleException(where + " is " + shown(port) + ", and one float [1, D] is wanted");
        }
    }

    private Component component(String where, String name) {
        Component found = manifest.components().get(name);
        if (found == null) {
            throw new BundleException(where + " names component " + Quoted.quoted(name)
                    + ", which is not among graphs " + manifest.components().keySet());
        }
        return found;
    }

    /** An output that a task refers to. */
    private Port output(String where, PortRef ref, PortKind kind) {
        String said = where + " is " + Quoted.quoted(ref.toString());
        Port found = find(ref);
        if (found == null) {
            throw new BundleException(said + ", which is no output of graphs");
        }
        if (found.kind() != kind) {
            throw new BundleException(said + ", whose kind is " + JsonValue.label(found.kind()) + ", not "
                    + JsonValue.label(kind));
        }
        return found;
    }

    private @Nullable Port find(PortRef ref) {
        Component component = manifest.components().get(ref.component());
        return component == null ? null : component.output(ref.port());
    }

    private static String shown(Port port) {
        return Quoted.shortened("'" + port.name() + "' " + JsonValue.label(port.kind()) + " "
                + port.dtype().label() + " " + port.shape(), 100);
    }
}
