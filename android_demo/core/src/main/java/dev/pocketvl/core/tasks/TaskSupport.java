package dev.pocketvl.core.tasks;

import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.manifest.Component;
import dev.pocketvl.core.manifest.Manifest;
import dev.pocketvl.core.manifest.Port;
import dev.pocketvl.core.manifest.PortRef;
import dev.pocketvl.core.manifest.Processor;
import dev.pocketvl.core.manifest.Size;
import dev.pocketvl.core.manifest.Task;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/** Which of a bundle's tasks this library can run; what stands in the way is a noun phrase. */
public final class TaskSupport {
    private static final List<String> IMAGE_AND_TEXT = List.of("image", "tokenizers");

    private TaskSupport() {}

    /** The tasks that can be run, by name, in the manifest's order. */
    public static Map<String, Task> runnable(Manifest manifest) {
        Map<String, Task> found = new LinkedHashMap<>();
        manifest.tasks().forEach((name, task) -> {
            if (obstacle(manifest, task) == null) {
                found.put(name, task);
            }
        });
        return Collections.unmodifiableMap(found);
    }

    /** Why a task cannot be run: it goes on from "this library cannot run"; null where it can. */
    public static @Nullable String obstacle(Manifest manifest, Task task) {
        List<PortRef> outputs = outputs(task);
        if (outputs.isEmpty()) {
            return "tasks of kind '" + task.kind() + "'";
        }
        List<String> kinds = new ArrayList<>();
        for (PortRef ref : outputs) {
            Component component = Objects.requireNonNull(manifest.components().get(ref.component()));
            Map<String, Processor> processors = processors(manifest, component);
            boolean several = outputs.size() > 1 && processors.size() > 1;
            if (several || !allMadeBy(processors.keySet(), component)) {
                return ref.component() + ", whose inputs are not all made by "
                        + (several ? "one processor" : "processors");
            }
            if (!hasFixedSizes(component)) {
                return ref.component() + ", which has sizes that differ from run to run";
            }
            for (Processor processor : processors.values()) {
                if (processor instanceof Processor.Text text && !text.prompt().isEmpty()) {
                    return "prompts";
                }
                kinds.add(processor.kind());
            }
        }
        Collections.sort(kinds);
        boolean known = task instanceof Task.Embed
                ? kinds.size() == 1 && IMAGE_AND_TEXT.contains(kinds.get(0))
                : kinds.equals(IMAGE_AND_TEXT);
        return known ? null : task.kind() + " tasks of " + String.join(" and ", kinds);
    }

    /** The error, in one line, for a task that a bundle or a variant of it has not, or that cannot be run. */
    static BundleException refuse(Manifest manifest, String variant, String name) {
        Task task = manifest.tasks().get(name);
        if (task == null) {
            String known = manifest.tasks().isEmpty() ? "none" : String.join(", ", manifest.tasks().keySet());
            return new BundleException(manifest.name() + " has no task '" + name + "'; it has " + known);
        }
        String obstacle = obstacle(manifest, task);
        if (obstacle != null) {
            return new BundleException("task '" + name + "': this library cannot run " + obstacle
                    + "; install a newer version of this app");
        }
        for (PortRef ref : outputs(task)) {
            if (!manifest.variant(variant).files().containsKey(ref.component())) {
                return new BundleException(
                        "task '" + name + "': variant " + variant + " has no " + ref.component() + "; use another variant");
            }
        }
        return new BundleException("task '" + name + "' is of kind '" + task.kind() + "' and cannot be asked so");
    }

    /** The tasks that can be run with the components of a variant. */
    static Map<String, Task> runnable(Manifest manifest, String variant) {
        Set<String> components = manifest.variant(variant).files().keySet();
        Map<String, Task> found = new LinkedHashMap<>(runnable(manifest));
        found.values().removeIf(task -> !outputs(task).stream().allMatch(ref -> components.contains(ref.component())));
        return found;
    }

    /** The outputs that answers are made of, of tasks of a kind that can be run. */
    static List<PortRef> outputs(Task task) {
        if (task instanceof Task.Contrastive contrastive) {
            return List.of(contrastive.first(), contrastive.second());
        }
        if (task instanceof Task.Embed embed) {
            return List.of(embed.embedding());
        }
        return task instanceof Task.Labels labels ? List.of(labels.logits()) : List.of();
    }

    /** The processors that fill a component's inputs, by name. */
    static Map<String, Processor> processors(Manifest manifest, Component component) {
        Set<String> names = component.inputs().stream()
                .map(Port::from)
                .filter(Objects::nonNull)
                .collect(Collectors.toCollection(LinkedHashSet::new));
        Map<String, Processor> found = new LinkedHashMap<>(manifest.processors());
        found.keySet().retainAll(names);
        return found;
    }

    private static boolean allMadeBy(Set<String> processors, Component component) {
        return component.inputs().stream().allMatch(port -> port.from() != null && processors.contains(port.from()));
    }

    private static boolean hasFixedSizes(Component component) {
        return Stream.concat(component.inputs().stream(), component.outputs().stream())
                .flatMap(port -> port.shape().stream())
                .allMatch(Size::isFixed);
    }
}
