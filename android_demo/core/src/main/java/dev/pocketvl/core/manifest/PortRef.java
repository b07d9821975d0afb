package dev.pocketvl.core.manifest;

/**
 * A reference to an output.
 *
 * @param component whose output it is
 * @param port its name, which may hold dots
 */
public record PortRef(String component, String port) {
    /** Splits {@code component.port} at the first dot; without one, the port's name is empty, which none has. */
    public static PortRef of(String text) {
        int dot = text.indexOf('.');
        return dot < 0 ? new PortRef(text, "") : new PortRef(text.substring(0, dot), text.substring(dot + 1));
    }

    @Override
    public String toString() {
        return port.isEmpty() ? component : component + "." + port;
    }
}
