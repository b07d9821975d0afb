package dev.pocketvl.core.manifest;

import dev.pocketvl.core.engine.DType;
import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.json.JsonFields;
import dev.pocketvl.core.json.JsonValue;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;

/** Reads what a manifest says of components' graphs. */
final class ComponentReader {
    private ComponentReader() {}

    static Component read(JsonValue value) {
        JsonFields fields = value.fields("inputs", "outputs");
        Component component = new Component(ports(fields.get("inputs"), "from"), ports(fields.get("outputs"), "space"));
        if (component.inputs().isEmpty() || component.outputs().isEmpty()) {
            throw value.refused("a graph has at least one input and one output");
        }
        checkNames(value, component.inputs());
        checkNames(value, component.outputs());
        return component;
    }

    private static void checkNames(JsonValue value, List<Port> ports) {
        Set<String> names = new HashSet<>();
        for (Port port : ports) {
            if (!names.add(port.name())) {
                throw value.refused("two ports have one name: '" + port.name() + "'");
            }
        }
    }

    /** Ports of one side, whose key that the other side has not is {@code own}. */
    private static List<Port> ports(JsonValue value, String own) {
        List<Port> ports = new ArrayList<>();
        for (JsonValue each : value.items()) {
            JsonFields fields = each.fields("name", "dtype", "shape", "kind", own + "?");
            String name = fields.get("name").string();
            int length = Names.characters(name);
            if (length < 1 || length > Names.MAX_NAME_CHARS) {
                throw each.refused("a port's name must have 1 to " + Names.MAX_NAME_CHARS + " characters, not " + length);
            }
            PortKind kind = fields.get("kind").oneOf(PortKind.class);
            boolean input = own.equals("from");
            String space = input ? null : fields.findString("space");
            checkSpace(each, kind, input, space);
            ports.add(new Port(
                    name,
                    fields.get("dtype").oneOf(DType.class),
                    shape(fields.get("shape")),
                    kind,
                    input ? fields.findString("from") : null,
                    space));
        }
        return ports;
    }

    private static void checkSpace(JsonValue value, PortKind kind, boolean input, String space) {
        if (!input && (space != null) != (kind == PortKind.EMBEDDING)) {
            throw value.refused("space goes with kind 'embedding', and with no other");
        }
        if (space != null && Names.characters(space) > Names.MAX_NAME_CHARS) {
            throw value.refused("space has " + Names.characters(space) + " characters, and at most "
                    + Names.MAX_NAME_CHARS + " may stand");
        }
    }

    static List<Size> shape(JsonValue value) {
        return value.items().stream().map(each -> size(value, each)).collect(Collectors.toList());
    }

    private static Size size(JsonValue shape, JsonValue value) {
        if (value.isString()) {
            try {
                Names.check("size", value.string());
            } catch (BundleException error) {
                throw value.refused(String.valueOf(error.getMessage()));
            }
            return new Size(-1, value.string());
        }
        if (!value.isInteger()) {
            throw value.wrongType("an integer or a string");
        }
        long size = value.saturated();
        if (size < 1 || size > Integer.MAX_VALUE) {
            throw shape.refused("shape must hold sizes of at least 1, not " + size);
        }
        return new Size((int) size, null);
    }
}
