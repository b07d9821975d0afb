package dev.pocketvl.core.manifest;

import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.image.ImageSettings;
import dev.pocketvl.core.image.ImageSettings.Mode;
import dev.pocketvl.core.json.JsonFields;
import dev.pocketvl.core.json.JsonValue;
import dev.pocketvl.core.manifest.Processor.PromptSegment;
import dev.pocketvl.core.text.TokenizerSettings;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Collectors;

/** Reads what a manifest says of processors. */
final class ProcessorReader {
    private static final int MAX_PIXELS = 89_000_000;
    private static final int MAX_LENGTH = 65_536;
    private static final int MAX_SAMPLES = 1 << 26;

    private enum AudioPad {
        REPEAT,
        ZEROS
    }

    private enum MelScale {
        SLANEY,
        HTK
    }

    private ProcessorReader() {}

    static Processor read(JsonValue value) {
        JsonValue kind = TaskReader.kind(value);
        switch (kind.isString() ? kind.string() : "") {
            case "image":
                return image(value);
            case "tokenizers":
                return text(value);
            case "log_mel":
                return audio(value);
            default:
                throw kind.unknown("image", "tokenizers", "log_mel");
        }
    }

    private static Processor image(JsonValue value) {
        JsonFields fields = value.fields(
                "kind", "orientation", "alpha", "color", "steps", "output", "normalized_in_graph");
        fields.get("color").literal("rgb");
        checkNormalization(fields.get("normalized_in_graph"));
        List<ImageSettings.Step> steps = new ArrayList<>();
        int[] made = null;
        for (JsonValue each : fields.get("steps").items()) {
            ImageSettings.Step step = step(each);
            steps.add(step);
            made = sizeAfter(step);
        }
        if (made == null) {
            throw value.refused(
                    "steps leave pictures of several sizes; an exact resize, a center_crop or a pad must follow");
        }
        JsonFields output = fields.get("output").fields("dtype", "layout", "shape");
        output.get("dtype").literal("uint8");
        output.get("layout").literal("nhwc");
        List<Long> shape = output.get("shape").items(4).stream()
                .map(JsonValue::saturated)
                .collect(Collectors.toList());
        List<Long> wanted = List.of(1L, (long) made[0], (long) made[1], 3L);
        if (!shape.equals(wanted)) {
            throw value.refused("output.shape is " + shape + ", and steps make " + wanted);
        }
        return new Processor.Image(new ImageSettings(
                fields.get("orientation").oneOf(ImageSettings.Orientation.class),
                fields.get("alpha").oneOf(ImageSettings.Alpha.class),
                steps,
                made[0],
                made[1]));
    }

    private static void checkNormalization(JsonValue value) {
        JsonFields fields = value.fields("mean", "std", "rescale");
        fields.get("mean").items(3).forEach(JsonValue::number);
        if (fields.get("std").items(3).stream().anyMatch(each -> each.number() == 0)) {
            throw value.refused("std must not be 0");
        }
        fields.get("rescale").number();
    }

    private static ImageSettings.Step step(JsonValue value) {
        JsonValue op = value.entries().get("op");
        if (op == null) {
            throw value.missing("op");
        }
        switch (op.isString() ? op.string() : "") {
            case "resize":
                return resize(value);
            case "center_crop":
                JsonFields crop = value.fields("op", "height", "width", "rounding");
                return new ImageSettings.CenterCrop(
                        size(crop, "height"),
                        checkedWidth(value, crop),
                        crop.get("rounding").oneOf(ImageSettings.Rounding.class));
            case "pad":
                JsonFields pad = value.fields("op", "height", "width", "anchor", "value");
                return new ImageSettings.Pad(
                        size(pad, "height"),
                        checkedWidth(value, pad),
                        pad.get("value").items(3).stream().mapToInt(each -> each.integer(0, 255)).toArray(),
                        pad.get("anchor").oneOf(ImageSettings.Anchor.class));
            default:
                throw op.unknown("resize", "center_crop", "pad");
        }
    }

    private static ImageSettings.Step resize(JsonValue value) {
        JsonFields fields =
                value.fields("op", "mode", "filter", "antialias", "rounding", "size?", "height?", "width?");
        Mode mode = fields.get("mode").oneOf(Mode.class);
        boolean exact = mode == Mode.EXACT;
        if ((fields.find("size") == null) != exact
                || (fields.find("height") == null) == exact
                || (fields.find("width") == null) == exact) {
            throw value.refused("a resize of mode '" + JsonValue.label(mode) + "' takes "
                    + (exact ? "height and width" : "size") + ", and nothing else");
        }
        int edge = exact ? 0 : size(fields, "size");
        if (!exact) {
            checkPixels(value, edge, edge);
        }
        return new ImageSettings.Resize(
                mode,
                edge,
                exact ? size(fields, "height") : 0,
                exact ? checkedWidth(value, fields) : 0,
                fields.get("filter").oneOf(ImageSettings.Filter.class),
                fields.get("antialias").bool(),
                fields.get("rounding").oneOf(ImageSettings.Rounding.class));
    }

    private static int size(JsonFields fields, String key) {
        long size = fields.get(key).saturated();
        if (size < 1) {
            throw fields.refused("sizes must be at least 1, and " + key + " is " + size);
        }
        if (size > MAX_PIXELS) {
            throw fields.refused(key + " " + size + " and the other size make more than " + MAX_PIXELS + " pixels");
        }
        return (int) size;
    }

    private static int checkedWidth(JsonValue value, JsonFields fields) {
        int width = size(fields, "width");
        checkPixels(value, size(fields, "height"), width);
        return width;
    }

    private static void checkPixels(JsonValue value, int height, int width) {
        if ((long) height * width > MAX_PIXELS) {
            throw value.refused(
                    "sizes [" + height + ", " + width + "] make more than " + MAX_PIXELS + " pixels");
        }
    }

    /** Height and width of what a step makes; null where they depend on the picture. */
    private static int[] sizeAfter(ImageSettings.Step step) {
        if (step instanceof ImageSettings.CenterCrop crop) {
            return new int[] {crop.height(), crop.width()};
        }
        if (step instanceof ImageSettings.Pad pad) {
            return new int[] {pad.height(), pad.width()};
        }
        ImageSettings.Resize resize = (ImageSettings.Resize) step;
        return resize.mode() == Mode.EXACT ? new int[] {resize.height(), resize.width()} : null;
    }

    private static Processor text(JsonValue value) {
        JsonFields fields = value.fields("kind", "file", "max_length", "pad", "truncate", "canonicalize", "prompt");
        JsonFields pad = fields.get("pad").fields("id", "side");
        TokenizerSettings settings = new TokenizerSettings(
                fields.get("max_length").integer(1, MAX_LENGTH),
                pad.get("id").integer(0, Integer.MAX_VALUE),
                pad.get("side").oneOf(TokenizerSettings.Side.class),
                fields.get("truncate").oneOf(TokenizerSettings.Side.class),
                fields.get("canonicalize").items().stream()
                        .map(each -> each.oneOf(TokenizerSettings.Canonicalize.class))
                        .collect(Collectors.toList()));
        String file = relativePath(fields.get("file"));
        return new Processor.Text(
                settings,
                file,
                fields.get("prompt").items().stream().map(ProcessorReader::segment).collect(Collectors.toList()));
    }

    /** A path that stays inside the bundle. */
    static String relativePath(JsonValue value) {
        try {
            return Names.checkRelativePath(value.string());
        } catch (BundleException error) {
            throw value.refused(String.valueOf(error.getMessage()));
        }
    }

    private static PromptSegment segment(JsonValue value) {
        JsonFields fields = value.fields("kind", "text?");
        PromptSegment.Kind kind = fields.get("kind").oneOf(PromptSegment.Kind.class);
        String text = fields.findString("text");
        if ((text != null) != (kind == PromptSegment.Kind.LITERAL)) {
            throw value.refused("text goes with kind 'literal', and with no other");
        }
        return new PromptSegment(kind, text);
    }

    private static Processor audio(JsonValue value) {
        JsonFields fields = value.fields("kind", "rate", "n_fft", "hop", "mels", "low_hz", "high_hz", "mel_scale",
                "window", "samples", "pad", "longer", "output");
        for (String key : Arrays.asList("rate", "n_fft", "hop", "mels", "samples")) {
            fields.get(key).integer(1, MAX_SAMPLES);
        }
        fields.get("low_hz").number();
        fields.get("high_hz").number();
        fields.get("mel_scale").oneOf(MelScale.class);
        fields.get("window").literal("hann");
        fields.get("pad").oneOf(AudioPad.class);
        fields.get("longer").literal("first_window");
        JsonFields output = fields.get("output").fields("dtype", "shape");
        output.get("dtype").literal("float32");
        List<Integer> shape = output.get("shape").items().stream()
                .map(each -> each.integer(1, Integer.MAX_VALUE))
                .collect(Collectors.toList());
        long frames = fields.get("samples").integer(1, MAX_SAMPLES) / fields.get("hop").integer(1, MAX_SAMPLES) + 1;
        long mels = fields.get("mels").integer(1, MAX_SAMPLES);
        double product = shape.stream().mapToDouble(Integer::doubleValue).reduce(1, (a, b) -> a * b);
        if (product != (double) frames * mels) {
            throw value.refused("output.shape is " + shape + ", and " + frames + " x " + mels + " come out");
        }
        return new Processor.Audio(shape);
    }
}
