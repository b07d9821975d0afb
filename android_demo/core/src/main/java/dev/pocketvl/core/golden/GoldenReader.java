package dev.pocketvl.core.golden;

import dev.pocketvl.core.bundle.Bundle;
import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.golden.Golden.AnswerTolerance;
import dev.pocketvl.core.golden.Golden.ArrayTolerance;
import dev.pocketvl.core.golden.Golden.ExpectedAnswer;
import dev.pocketvl.core.golden.Golden.ExpectedArray;
import dev.pocketvl.core.golden.Golden.GoldenAudio;
import dev.pocketvl.core.golden.Golden.GoldenImage;
import dev.pocketvl.core.golden.Golden.GoldenText;
import dev.pocketvl.core.golden.Golden.Input;
import dev.pocketvl.core.golden.Golden.VariantTolerance;
import dev.pocketvl.core.json.JsonFields;
import dev.pocketvl.core.json.JsonValue;
import dev.pocketvl.core.json.StrictJson;
import dev.pocketvl.core.manifest.FormatVersion;
import dev.pocketvl.core.manifest.Manifest;
import dev.pocketvl.core.manifest.Names;
import java.util.ArrayList;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;
import java.util.stream.Collectors;

/** Reads golden/golden.json. */
final class GoldenReader {
    private static final String FORMAT = "pocketvl-golden";

    private GoldenReader() {}

    static Golden read(Bundle bundle) {
        String where = bundle + "/" + Golden.FILE;
        Object parsed = StrictJson.parse(bundle.read(Golden.FILE, Manifest.MAX_JSON_BYTES), where);
        Object version = parsed instanceof Map<?, ?> fields ? fields.get("version") : null;
        boolean newer;
        try {
            newer = FormatVersion.isNewer(version);
        } catch (BundleException error) {
            throw new BundleException(where + ": " + error.getMessage(), error);
        }
        JsonFields top = JsonValue.file(parsed, where, newer)
                .fields("format", "version", "inputs", "outputs", "answers", "tolerance");
        top.get("format").literal(FORMAT);
        JsonValue answers = top.get("answers");
        Golden golden = new Golden(
                each(top.get("inputs"), GoldenReader::inputs),
                each(top.get("outputs"), list -> records(list, GoldenReader::array)),
                answers.isNull() ? Map.of() : each(answers, list -> records(list, GoldenReader::answer)),
                each(top.get("tolerance"), GoldenReader::tolerance));
        golden.outputs().forEach((name, rows) ->
                rows.forEach(row -> checkInputs(where + ": outputs." + name, golden, row.inputs())));
        golden.answers().forEach((name, rows) ->
                rows.forEach(row -> checkInputs(where + ": answers." + name, golden, row.inputs())));
        return golden;
    }

    private static void checkInputs(String where, Golden golden, Map<String, Integer> inputs) {
        inputs.forEach((processor, number) -> {
            int count = golden.inputs().getOrDefault(processor, List.of()).size();
            if (number < 0 || number >= count) {
                throw new BundleException(
                        where + ": inputs." + processor + " is " + number + ", and there are " + count);
            }
        });
    }

    private static List<Input> inputs(JsonValue list) {
        List<Input> made = new ArrayList<>();
        for (JsonValue value : list.items()) {
            made.add(input(value, made.size()));
        }
        return made;
    }

    private static Input input(JsonValue value, int number) {
        JsonValue kind = value.entries().get("kind");
        if (kind == null) {
            throw value.missing("kind");
        }
        switch (kind.isString() ? kind.string() : "") {
            case "image":
                JsonFields image = value.fields("kind", "file", "pixels");
                return new GoldenImage(path(image.get("file")), path(image.get("pixels")));
            case "text":
                JsonFields text = value.fields("kind", "text", "ids");
                List<Integer> ids = text.get("ids").items().stream()
                        .map(id -> id.integer(Integer.MIN_VALUE, Integer.MAX_VALUE))
                        .collect(Collectors.toList());
                return new GoldenText(number, text.get("text").string(), ids);
            case "audio":
                JsonFields audio = value.fields("kind", "file", "features");
                path(audio.get("features"));
                return new GoldenAudio(path(audio.get("file")));
            default:
                throw kind.unknown("image", "text", "audio");
        }
    }

    private static String path(JsonValue value) {
        return Names.checkRelativePath(value.string());
    }

    private static ExpectedArray array(JsonValue value) {
        JsonFields fields = value.fields("inputs", "shape", "values");
        double[] values = numbers(fields.get("values"));
        List<Integer> shape = fields.get("shape").items().stream()
                .map(size -> size.integer(0, Integer.MAX_VALUE))
                .collect(Collectors.toList());
        double product = shape.stream().mapToDouble(Integer::doubleValue).reduce(1, (a, b) -> a * b);
        if (product != values.length) {
            throw value.refused("values has " + values.length + " numbers, and shape is " + shape);
        }
        return new ExpectedArray(indices(fields.get("inputs")), values);
    }

    private static ExpectedAnswer answer(JsonValue value) {
        JsonFields fields = value.fields("inputs", "probability", "similarity?", "answer?");
        double[] probability = numbers(fields.get("probability"));
        JsonValue stored = fields.find("similarity");
        double[] similarity = stored == null ? null : numbers(stored);
        if (similarity != null && similarity.length != probability.length) {
            throw value.refused("similarity and probability differ in length");
        }
        return new ExpectedAnswer(
                indices(fields.get("inputs")), probability, similarity, fields.findString("answer"));
    }

    private static VariantTolerance tolerance(JsonValue value) {
        JsonFields fields = value.fields("ports", "answers");
        return new VariantTolerance(
                each(fields.get("ports"), port -> {
                    JsonFields limits = port.fields("max_abs", "cosine_min");
                    JsonValue maxAbs = limits.get("max_abs");
                    return new ArrayTolerance(
                            maxAbs.isNull() ? Double.POSITIVE_INFINITY : maxAbs.number(),
                            limits.get("cosine_min").number());
                }),
                each(fields.get("answers"), task -> {
                    JsonFields limits = task.fields("similarity", "probability");
                    return new AnswerTolerance(
                            limits.get("similarity").number(),
                            limits.get("probability").number());
                }));
    }

    private static Map<String, Integer> indices(JsonValue value) {
        return each(value, number -> number.integer(Integer.MIN_VALUE, Integer.MAX_VALUE));
    }

    private static double[] numbers(JsonValue value) {
        return value.items().stream().mapToDouble(JsonValue::number).toArray();
    }

    private static <T> List<T> records(JsonValue list, Function<JsonValue, T> read) {
        return list.items().stream().map(read).collect(Collectors.toList());
    }

    private static <T> Map<String, T> each(JsonValue object, Function<JsonValue, T> read) {
        Map<String, T> made = new LinkedHashMap<>();
        object.entries().forEach((key, value) -> made.put(key, read.apply(value)));
        return Collections.unmodifiableMap(made);
    }
}
