package dev.pocketvl.core.tasks;

import dev.pocketvl.core.image.ImageProcessor;
import dev.pocketvl.core.image.ImageSettings;
import dev.pocketvl.core.image.Picture;
import dev.pocketvl.core.text.TokenIds;
import dev.pocketvl.core.text.Tokenizer;

/** A bundle's processors, ready to use, by the names that its graphs know them by. */
final class Processors {
    private Processors() {}

    /** Makes pixels of pictures. */
    record Pictures(String name, ImageSettings settings, ImageProcessor processor) {
        Features features(Picture picture, StageClock clock) {
            return clock.time(
                    StageTimes.PREPROCESS,
                    () -> Features.ofPixels(name, processor.pixels(picture), settings.height(), settings.width()));
        }
    }

    /** Makes ids of texts. */
    record Texts(String name, Tokenizer tokenizer) {
        Encoded features(String text, StageClock clock) {
            return clock.time(StageTimes.TOKENS, () -> {
                TokenIds tokens = tokenizer.encode(text);
                return new Encoded(Features.ofText(name, tokens), tokens.truncated());
            });
        }
    }

    /** A text's features, and whether tokens were cut. */
    record Encoded(Features features, boolean truncated) {}
}
