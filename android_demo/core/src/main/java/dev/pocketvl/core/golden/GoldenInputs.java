package dev.pocketvl.core.golden;

import dev.pocketvl.core.bundle.Bundle;
import dev.pocketvl.core.errors.InputException;
import dev.pocketvl.core.errors.PocketVLException;
import dev.pocketvl.core.golden.Golden.GoldenImage;
import dev.pocketvl.core.golden.Golden.GoldenText;
import dev.pocketvl.core.golden.Golden.Input;
import dev.pocketvl.core.golden.SelfTestReport.Stage;
import dev.pocketvl.core.image.Picture;
import dev.pocketvl.core.image.PictureDecoder;
import dev.pocketvl.core.tasks.Features;
import dev.pocketvl.core.tasks.Processors;
import dev.pocketvl.core.text.TokenIds;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.function.BiFunction;
import org.jspecify.annotations.Nullable;

/**
 * Holds what the processors make of the golden inputs against what they must make. Later stages are fed with the
 * expected pixels, so that a decoder that is a level off is told apart from an engine that is off.
 */
final class GoldenInputs {
    private final Bundle bundle;
    private final Golden golden;
    private final PictureDecoder decoder;
    private final Processors processors;

    GoldenInputs(Bundle bundle, Golden golden, PictureDecoder decoder) {
        this.bundle = bundle;
        this.golden = golden;
        this.decoder = decoder;
        processors = new Processors(bundle);
    }

    Stage pixels() {
        return stage("pixels", (processor, input) ->
                input instanceof GoldenImage image ? wrongPixels(processor, image) : null, GoldenImage.class);
    }

    Stage ids() {
        return stage("ids", (processor, input) ->
                input instanceof GoldenText text ? wrongIds(processor, text) : null, GoldenText.class);
    }

    /**
     * What components are fed with for a golden input: pixels as they are expected, ids as they are made here.
     *
     * @throws InputException it is a sound, or its file or text cannot be used
     */
    Features features(String processor, int number) {
        Input input = golden.inputs().get(processor).get(number);
        if (input instanceof GoldenImage image) {
            return processors.features(processor, rgb(decode(image.pixels())));
        }
        if (input instanceof GoldenText text) {
            return features(processor, text.text());
        }
        throw new InputException(input.shown() + " is a sound, which this library does not read");
    }

    /** What components are fed with for a text. */
    Features features(String processor, String text) {
        return processors.features(processor, processors.ids(processor, text));
    }

    private Stage stage(
            String name, BiFunction<String, Input, @Nullable String> wrong, Class<? extends Input> kind) {
        List<String> failures = new ArrayList<>();
        int[] checked = {0};
        golden.inputs().forEach((processor, inputs) -> inputs.forEach(input -> {
            if (!kind.isInstance(input)) {
                return;
            }
            checked[0]++;
            String found;
            try {
                found = wrong.apply(processor, input);
            } catch (PocketVLException error) {
                found = error.getMessage();
            }
            if (found != null) {
                failures.add(input.shown() + ": " + found);
            }
        }));
        return new Stage(name, checked[0], "", failures);
    }

    private @Nullable String wrongPixels(String processor, GoldenImage image) {
        byte[] made = processors.pixels(processor, decode(image.file()));
        byte[] expected = rgb(decode(image.pixels()));
        if (made.length != expected.length) {
            return made.length / 3 + " pixels, expected " + expected.length / 3;
        }
        int off = 0;
        int worst = 0;
        for (int i = 0; i < made.length; i++) {
            int difference = Math.abs((made[i] & 0xFF) - (expected[i] & 0xFF));
            off += difference == 0 ? 0 : 1;
            worst = Math.max(worst, difference);
        }
        if (worst == 0) {
            return null;
        }
        String whose = isJpeg(image.file()) ? "; the decoder for JPEG here is not libjpeg's" : "";
        return String.format(Locale.ROOT, "%d of %d values differ, by up to %d grey levels%s", off, made.length, worst, whose);
    }

    private @Nullable String wrongIds(String processor, GoldenText text) {
        TokenIds made = processors.ids(processor, text.text());
        int[] expected = text.ids().stream().mapToInt(Integer::intValue).toArray();
        return Arrays.equals(made.ids(), expected) ? null : "the token ids differ";
    }

    private Picture decode(String path) {
        ByteBuffer content = bundle.read(path);
        byte[] file = new byte[content.remaining()];
        content.get(file);
        return decoder.decode(file);
    }

    private boolean isJpeg(String path) {
        ByteBuffer content = bundle.read(path);
        return content.remaining() > 1 && content.get(0) == (byte) 0xFF && content.get(1) == (byte) 0xD8;
    }

    private static byte[] rgb(Picture picture) {
        byte[] rgb = new byte[3 * picture.argb().length];
        for (int i = 0; i < picture.argb().length; i++) {
            int pixel = picture.argb()[i];
            rgb[3 * i] = (byte) (pixel >> 16);
            rgb[3 * i + 1] = (byte) (pixel >> 8);
            rgb[3 * i + 2] = (byte) pixel;
        }
        return rgb;
    }
}
