package dev.pocketvl.core.manifest;

import dev.pocketvl.core.json.JsonFields;
import dev.pocketvl.core.json.JsonValue;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;

/** Reads what a manifest says of tasks. */
final class TaskReader {
    /** What a label stands for in a template. */
    static final String LABEL_SLOT = "{label}";

    private static final int MAX_TEXT_CHARS = 1_000;
    private static final int MAX_LABELS_CHARS = 4_000_000; // of all labels, each in the template
    private static final double MAX_SCALE = 1e9;
    private static final Set<String> KINDS = Set.of("contrastive", "labels", "embed", "match", "generate");

    private TaskReader() {}

    static Task read(JsonValue value) {
        JsonValue kind = kind(value);
        switch (kind.isString() ? kind.string() : "") {
            case "contrastive":
                return contrastive(value);
            case "labels":
                return labels(value);
            case "embed":
                return new Task.Embed(PortRef.of(
                        value.fields("kind", "embedding").get("embedding").string()));
            case "match":
                return matching(value);
            case "generate":
                return generate(value);
            default:
                throw kind.unknown("contrastive", "labels", "embed", "match", "generate");
        }
    }

    /** The value of an object's key {@code kind}. */
    static JsonValue kind(JsonValue value) {
        JsonValue kind = value.entries().get("kind");
        if (kind == null) {
            throw value.missing("kind");
        }
        return kind;
    }

    /** Whether a task is of a kind that a newer format may have. */
    static boolean isOfUnknownKind(JsonValue value) {
        if (!value.isObject()) {
            return false;
        }
        JsonValue kind = value.entries().get("kind");
        return kind != null && kind.isString() && !KINDS.contains(kind.string());
    }

    private static Task contrastive(JsonValue value) {
        JsonFields fields = value.fields(
                "kind", "first", "second", "scale", "bias", "activation", "labels?", "template?");
        JsonFields scale = fields.get("scale").fields("first", "second");
        double bias = fields.get("bias").number();
        if (Math.abs(bias) > MAX_SCALE) {
            throw value.refused("bias " + bias + " must be between -1e9 and 1e9");
        }
        JsonValue labels = fields.find("labels");
        String template = fields.findString("template");
        if ((labels == null) != (template == null)) {
            throw value.refused("labels and template go together");
        }
        Task.Contrastive task = new Task.Contrastive(
                PortRef.of(fields.get("first").string()),
                PortRef.of(fields.get("second").string()),
                scale(scale, "first"),
                scale(scale, "second"),
                bias,
                fields.get("activation").oneOf(Activation.class),
                labels == null ? null : List.copyOf(labels.strings()),
                template);
        if (task.labels() != null && template != null) {
            checkTemplate(value, task.labels(), template);
        }
        return task;
    }

    private static double scale(JsonFields fields, String key) {
        double scale = fields.get(key).number();
        if (!(scale > 0 && scale <= MAX_SCALE)) {
            throw fields.refused("scale " + scale + " must be above 0, at most 1e9");
        }
        return scale;
    }

    private static void checkTemplate(JsonValue value, List<String> labels, String template) {
        if (!template.contains(LABEL_SLOT)) {
            throw value.refused("template must hold " + LABEL_SLOT);
        }
        if (Names.characters(template) > MAX_TEXT_CHARS) {
            throw value.refused("template has more than " + MAX_TEXT_CHARS + " characters");
        }
        checkLabels(value, labels);
        long slots = (template.length() - template.replace(LABEL_SLOT, "").length()) / LABEL_SLOT.length();
        long letters = labels.stream().mapToLong(Names::characters).sum();
        long chars = labels.size() * (long) Names.characters(template) + slots * letters;
        if (chars > MAX_LABELS_CHARS) {
            throw value.refused("labels: " + labels.size() + " in the template have " + chars
                    + " characters, and at most " + MAX_LABELS_CHARS + " are read");
        }
    }

    private static void checkLabels(JsonValue value, List<String> labels) {
        if (labels.stream().anyMatch(label -> Names.characters(label) > MAX_TEXT_CHARS)) {
            throw value.refused("labels: one has more than " + MAX_TEXT_CHARS + " characters");
        }
    }

    private static Task labels(JsonValue value) {
        JsonFields fields = value.fields("kind", "logits", "labels", "activation");
        List<String> labels = fields.get("labels").strings();
        if (labels.isEmpty()) {
            throw value.refused("labels is empty");
        }
        checkLabels(value, labels);
        return new Task.Labels(
                PortRef.of(fields.get("logits").string()),
                labels,
                fields.get("activation").oneOf(Activation.class));
    }

    private static Task matching(JsonValue value) {
        JsonFields fields = value.fields("kind", "logits", "positive_index", "activation", "reranks?");
        return new Task.Matching(
                PortRef.of(fields.get("logits").string()),
                fields.get("positive_index").integer(Integer.MIN_VALUE, Integer.MAX_VALUE),
                fields.get("activation").oneOf(Activation.class),
                fields.findString("reranks"));
    }

    private static Task generate(JsonValue value) {
        JsonFields fields = value.fields("kind", "vision", "connector?", "embed", "prefill", "step", "logits",
                "image_token", "cache_length", "max_new_tokens", "stop_ids");
        List<String> components = new ArrayList<>();
        components.add(fields.get("vision").string());
        String connector = fields.findString("connector");
        if (connector != null) {
            components.add(connector);
        }
        components.add(fields.get("embed").string());
        components.add(fields.get("step").string());
        List<JsonValue> prefill = fields.get("prefill").items();
        if (prefill.isEmpty()) {
            throw value.refused("prefill must name components with lengths of at least 1");
        }
        for (JsonValue each : prefill) {
            JsonFields one = each.fields("component", "length");
            components.add(one.get("component").string());
            one.get("length").integer(1, Integer.MAX_VALUE);
        }
        JsonFields token = fields.get("image_token").fields("id", "text", "count");
        token.get("id").integer(0, Integer.MAX_VALUE);
        token.get("text").string();
        token.get("count").integer(1, Integer.MAX_VALUE);
        fields.get("cache_length").integer(1, Integer.MAX_VALUE);
        fields.get("max_new_tokens").integer(1, Integer.MAX_VALUE);
        fields.get("stop_ids").items().forEach(each -> each.integer(0, Integer.MAX_VALUE));
        return new Task.Generate(components, PortRef.of(fields.get("logits").string()));
    }
}
