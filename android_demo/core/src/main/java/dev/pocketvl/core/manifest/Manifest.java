package dev.pocketvl.core.manifest;

import dev.pocketvl.core.engine.GraphSpec;
import dev.pocketvl.core.engine.TensorSpec;
import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.json.JsonValue;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.stream.Collectors;

/**
 * What a bundle says of itself. Maps keep the order of the file.
 *
 * @param version of the format, {@code major.minor}
 * @param name of the model, for people
 * @param family of the model, for people
 * @param processors by name; ports refer to them
 * @param components by name
 * @param variants by {@code <engine>-<precision>}
 * @param tasks by name; those of a kind that only a newer format has are left out
 * @param files by path: every file of the bundle but the manifest itself and what was measured
 */
public record Manifest(
        String version,
        String name,
        String family,
        Map<String, Processor> processors,
        Map<String, Component> components,
        Map<String, Variant> variants,
        Map<String, Task> tasks,
        Map<String, FileEntry> files) {
    /** The manifest's place in a bundle. */
    public static final String FILE = "manifest.json";

    /** The most bytes of a JSON file of a bundle that are read. */
    public static final int MAX_JSON_BYTES = 16_000_000;

    public Manifest {
        processors = Ordered.copy(processors);
        components = Ordered.copy(components);
        variants = Ordered.copy(variants);
        tasks = Ordered.copy(tasks);
        files = Ordered.copy(files);
    }

    /**
     * Reads and checks a manifest, as docs/BUNDLE.md says.
     *
     * @param content the file, from position to limit
     * @param where what to call it in messages
     * @throws BundleException it is damaged, of a version that this library does not read, or not valid; the message
     *     names {@code where} and the key path
     */
    public static Manifest read(ByteBuffer content, String where) {
        return ManifestReader.read(content, where);
    }

    /** The spaces that its embeddings lie in. */
    public Set<String> spaces() {
        return components.values().stream()
                .flatMap(component -> component.outputs().stream())
                .map(Port::space)
                .filter(Objects::nonNull)
                .collect(Collectors.toSet());
    }

    /** The output that a task refers to. */
    public Port output(PortRef ref) {
        return Objects.requireNonNull(
                Objects.requireNonNull(components.get(ref.component())).output(ref.port()));
    }

    /**
     * A component's graph as a variant has it, for an engine.
     *
     * @throws BundleException there is no such variant, it has no such component, or a size of the graph is not fixed
     */
    public GraphSpec graph(String variant, String component) {
        Variant found = variant(variant);
        Variant.StoredGraph stored = found.files().get(component);
        if (stored == null) {
            throw new BundleException("variant " + variant + " has no " + component + "; use another variant");
        }
        if (stored.weights() != null) {
            throw new BundleException("variant " + variant + " keeps weights of " + component
                    + " outside its graph, which is not read here; use a smaller variant");
        }
        Component contract = Objects.requireNonNull(components.get(component));
        return new GraphSpec(
                variant + " " + component,
                stored.file(),
                stored.signature(),
                JsonValue.label(found.precision()),
                found.minEngine(),
                tensors(component, contract.inputs(), stored),
                tensors(component, contract.outputs(), stored));
    }

    /**
     * A variant.
     *
     * @throws BundleException there is none of that name; the message lists those there are
     */
    public Variant variant(String variant) {
        Variant found = variants.get(variant);
        if (found == null) {
            String there = variants.isEmpty() ? "none" : String.join(", ", variants.keySet());
            throw new BundleException(name + " has no variant '" + variant + "'; it has " + there);
        }
        return found;
    }

    private static List<TensorSpec> tensors(String component, List<Port> ports, Variant.StoredGraph stored) {
        List<TensorSpec> specs = new ArrayList<>();
        for (Port port : ports) {
            Variant.PortOverride other = stored.ports().get(port.name());
            List<Size> shape = other == null || other.shape().isEmpty() ? port.shape() : other.shape();
            if (!shape.stream().allMatch(Size::isFixed)) {
                throw new BundleException(component + "." + port.name() + " has a size that differs from run to run, "
                        + "which this library cannot run");
            }
            specs.add(new TensorSpec(
                    port.name(),
                    other == null || other.dtype() == null ? port.dtype() : other.dtype(),
                    shape.stream().map(Size::value).collect(Collectors.toList())));
        }
        return specs;
    }
}
