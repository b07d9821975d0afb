package dev.pocketvl.core.manifest;

import dev.pocketvl.core.engine.DType;
import dev.pocketvl.core.errors.Quoted;
import dev.pocketvl.core.json.JsonFields;
import dev.pocketvl.core.json.JsonValue;
import dev.pocketvl.core.manifest.Variant.PortOverride;
import dev.pocketvl.core.manifest.Variant.StoredGraph;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

/** Reads what a manifest says of variants. */
final class VariantReader {
    private static final Pattern ENGINE_VERSION = Pattern.compile("[0-9]+(\\.[0-9]+)*");

    private VariantReader() {}

    static Variant read(JsonValue value) {
        JsonFields fields = value.fields("engine", "precision", "weights_bits", "activations_bits", "mode", "status",
                "files", "min_engine", "comparable");
        checkBits(fields.get("weights_bits"));
        checkBits(fields.get("activations_bits"));
        fields.get("mode").oneOf(Variant.Mode.class);
        String minEngine = fields.findString("min_engine");
        if (minEngine != null && !ENGINE_VERSION.matcher(minEngine).matches()) {
            throw value.refused("min_engine " + Quoted.quoted(minEngine) + " is no version, as 1.20 is one");
        }
        return new Variant(
                fields.get("engine").oneOf(Variant.EngineKind.class),
                fields.get("precision").oneOf(Variant.Precision.class),
                fields.get("status").oneOf(Variant.Status.class),
                minEngine,
                ManifestReader.each(fields.get("files").entries(), (name, item) -> stored(item)),
                fields.get("comparable").items().stream()
                        .map(VariantReader::comparable)
                        .collect(Collectors.toList()));
    }

    private static void checkBits(JsonValue value) {
        if (!value.isNull()) {
            value.integer(Integer.MIN_VALUE, Integer.MAX_VALUE);
        }
    }

    private static StoredGraph stored(JsonValue value) {
        JsonFields fields = value.fields("file", "signature?", "ports?", "weights?");
        return new StoredGraph(
                ProcessorReader.relativePath(fields.get("file")),
                fields.findString("signature"),
                fields.has("ports")
                        ? ManifestReader.each(fields.get("ports").entries(), (name, item) -> override(item))
                        : Map.of(),
                fields.has("weights") ? ProcessorReader.relativePath(fields.get("weights")) : null);
    }

    private static PortOverride override(JsonValue value) {
        JsonFields fields = value.fields("dtype?", "shape?");
        JsonValue dtype = fields.find("dtype");
        JsonValue shape = fields.find("shape");
        return new PortOverride(
                dtype == null ? null : dtype.oneOf(DType.class),
                shape == null ? List.of() : ComponentReader.shape(shape));
    }

    private static Variant.Comparable comparable(JsonValue value) {
        JsonFields fields = value.fields("space", "centred_cosine_median");
        return new Variant.Comparable(
                fields.get("space").string(),
                ManifestReader.each(
                        fields.get("centred_cosine_median").entries(), (name, item) -> item.number()));
    }
}
