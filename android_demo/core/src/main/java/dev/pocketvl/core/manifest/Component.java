package dev.pocketvl.core.manifest;

import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * The contract of a component's graph, whatever engine and precision it comes in.
 *
 * @param inputs at least one
 * @param outputs at least one
 */
public record Component(List<Port> inputs, List<Port> outputs) {
    public Component {
        inputs = List.copyOf(inputs);
        outputs = List.copyOf(outputs);
    }

    /** The output of a name, or null. */
    public @Nullable Port output(String name) {
        return outputs.stream().filter(port -> port.name().equals(name)).findFirst().orElse(null);
    }
}
