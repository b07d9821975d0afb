package dev.pocketvl.core.tasks;

import dev.pocketvl.core.bundle.Bundle;
import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.errors.InputException;
import dev.pocketvl.core.image.ImageProcessor;
import dev.pocketvl.core.image.Picture;
import dev.pocketvl.core.manifest.Processor;
import dev.pocketvl.core.text.TokenIds;
import dev.pocketvl.core.text.Tokenizer;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;

/** A bundle's processors by their names, each made when it is first used. Not to be used from two threads at once. */
public final class Processors {
    private static final int MAX_TOKENIZER_BYTES = 40_000_000;

    private final Bundle bundle;
    private final Map<String, ImageProcessor> pictures = new HashMap<>();
    private final Map<String, Tokenizer> texts = new HashMap<>();

    public Processors(Bundle bundle) {
        this.bundle = bundle;
    }

    /**
     * A picture as graphs take it, uint8 [H, W, 3].
     *
     * @param processor name of one of kind image
     * @throws InputException the picture cannot be used
     */
    public byte[] pixels(String processor, Picture picture) {
        return imageProcessor(processor).pixels(picture);
    }

    /**
     * A text as graphs take it.
     *
     * @param processor name of one of kind tokenizers
     * @throws InputException the text cannot be used
     * @throws BundleException the tokenizer is damaged, or of a kind that this library does not read
     */
    public TokenIds ids(String processor, String text) {
        return tokenizer(processor).encode(text);
    }

    /** What components are fed with for pixels. */
    public Features features(String processor, byte[] pixels) {
        Processor.Image image = (Processor.Image) named(processor);
        return Features.ofPixels(
                processor, pixels, image.settings().height(), image.settings().width());
    }

    /** What components are fed with for ids. */
    public Features features(String processor, TokenIds tokens) {
        return Features.ofText(processor, tokens);
    }

    /** Makes a processor now, and not when it is first used. */
    void prepare(String processor) {
        if (named(processor) instanceof Processor.Image) {
            imageProcessor(processor);
        } else {
            tokenizer(processor);
        }
    }

    private ImageProcessor imageProcessor(String name) {
        return pictures.computeIfAbsent(name, key -> new ImageProcessor(((Processor.Image) named(key)).settings()));
    }

    private Tokenizer tokenizer(String name) {
        return texts.computeIfAbsent(name, key -> open((Processor.Text) named(key)));
    }

    private Tokenizer open(Processor.Text processor) {
        ByteBuffer content = bundle.read(processor.file(), MAX_TOKENIZER_BYTES);
        return Tokenizer.open(
                processor.settings(),
                new InputStreamReader(new Content(content), StandardCharsets.UTF_8.newDecoder()));
    }

    /** A buffer as a stream: the largest tokenizers have 35 MB, which the heap need not hold too. */
    private static final class Content extends InputStream {
        private final ByteBuffer content;

        Content(ByteBuffer content) {
            this.content = content;
        }

        @Override
        public int read() {
            return content.hasRemaining() ? content.get() & 0xFF : -1;
        }

        @Override
        public int read(byte[] into, int start, int length) {
            int count = Math.min(length, content.remaining());
            content.get(into, start, count);
            return count == 0 && length > 0 ? -1 : count;
        }
    }

    private Processor named(String name) {
        Processor found = bundle.manifest().processors().get(name);
        if (found == null) {
            throw new BundleException(bundle + " has no processor '" + name + "'; export the bundle again");
        }
        return found;
    }
}
