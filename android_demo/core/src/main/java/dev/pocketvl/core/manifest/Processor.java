package dev.pocketvl.core.manifest;

import dev.pocketvl.core.image.ImageSettings;
import dev.pocketvl.core.text.TokenizerSettings;
import java.util.List;
import org.jspecify.annotations.Nullable;

/** How something from outside becomes arrays. */
public sealed interface Processor {
    /** The word that stands for it in manifests. */
    String kind();

    /**
     * Pictures to pixels, uint8 [1, H, W, 3].
     *
     * @param settings how
     */
    record Image(ImageSettings settings) implements Processor {
        @Override
        public String kind() {
            return "image";
        }
    }

    /**
     * Texts to ids, int32 [1, T].
     *
     * @param settings how
     * @param file the tokenizer.json, in the bundle
     * @param prompt what stands around the text, for tasks of kind generate; empty: the text alone
     */
    record Text(TokenizerSettings settings, String file, List<PromptSegment> prompt) implements Processor {
        public Text {
            prompt = List.copyOf(prompt);
        }

        @Override
        public String kind() {
            return "tokenizers";
        }
    }

    /**
     * Sounds to log-mel spectrograms, float32; this library makes none.
     *
     * @param shape of what comes out
     */
    record Audio(List<Integer> shape) implements Processor {
        public Audio {
            shape = List.copyOf(shape);
        }

        @Override
        public String kind() {
            return "log_mel";
        }
    }

    /**
     * A part of a prompt.
     *
     * @param kind a literal text, or the place of the picture or of what the user asks
     * @param text of a literal; else null
     */
    record PromptSegment(Kind kind, @Nullable String text) {
        /** What stands at a place of a prompt. */
        public enum Kind {
            LITERAL,
            IMAGE,
            TEXT
        }
    }
}
