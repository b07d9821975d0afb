package dev.pocketvl.core.image;

import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import dev.pocketvl.core.image.ImageSettings.Alpha;
import dev.pocketvl.core.image.ImageSettings.Anchor;
import dev.pocketvl.core.image.ImageSettings.CenterCrop;
import dev.pocketvl.core.image.ImageSettings.Filter;
import dev.pocketvl.core.image.ImageSettings.Mode;
import dev.pocketvl.core.image.ImageSettings.Orientation;
import dev.pocketvl.core.image.ImageSettings.Pad;
import dev.pocketvl.core.image.ImageSettings.Resize;
import dev.pocketvl.core.image.ImageSettings.Rounding;
import dev.pocketvl.core.image.ImageSettings.Step;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;

/** Image processors as a manifest writes them, unchecked: what tests are given is well-formed. */
final class ImageSettingsJson {
    private ImageSettingsJson() {}

    static ImageSettings of(JsonObject processor) {
        List<Step> steps = new ArrayList<>();
        for (JsonElement step : processor.getAsJsonArray("steps")) {
            steps.add(step(step.getAsJsonObject()));
        }
        JsonArray shape = processor.getAsJsonObject("output").getAsJsonArray("shape");
        return new ImageSettings(
                one(Orientation.class, processor, "orientation"),
                one(Alpha.class, processor, "alpha"),
                steps,
                shape.get(1).getAsInt(),
                shape.get(2).getAsInt());
    }

    private static Step step(JsonObject step) {
        int height = number(step, "height");
        int width = number(step, "width");
        return switch (step.get("op").getAsString()) {
            case "resize" -> new Resize(
                    one(Mode.class, step, "mode"),
                    number(step, "size"),
                    height,
                    width,
                    one(Filter.class, step, "filter"),
                    step.get("antialias").getAsBoolean(),
                    one(Rounding.class, step, "rounding"));
            case "center_crop" -> new CenterCrop(height, width, one(Rounding.class, step, "rounding"));
            case "pad" -> new Pad(
                    height, width, numbers(step.getAsJsonArray("value")), one(Anchor.class, step, "anchor"));
            default -> throw new IllegalArgumentException("unknown step: " + step);
        };
    }

    private static int number(JsonObject step, String key) {
        return step.has(key) ? step.get(key).getAsInt() : 0;
    }

    private static int[] numbers(JsonArray values) {
        return new int[] {values.get(0).getAsInt(), values.get(1).getAsInt(), values.get(2).getAsInt()};
    }

    private static <E extends Enum<E>> E one(Class<E> kind, JsonObject from, String key) {
        return Enum.valueOf(kind, from.get(key).getAsString().toUpperCase(Locale.ROOT));
    }
}
