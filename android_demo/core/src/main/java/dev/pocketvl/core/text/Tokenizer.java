package dev.pocketvl.core.text;

import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.errors.InputException;
import java.io.Reader;
import java.util.Arrays;

/**
 * A tokenizer.json of the Hugging Face tokenizers library, with the padding and truncation that the manifest asks for.
 *
 * <p>It gives the ids that the library gives, from tables of its own: not those of the JVM or of Android, which differ
 * from release to release. It may be used from several threads at once.
 */
public final class Tokenizer {
    /** No text may have more characters, in code points. */
    public static final int MOST_CHARS = 250_000;

    private final TokenizerSettings settings;
    private final TokenizerFile file;

    private Tokenizer(TokenizerSettings settings, TokenizerFile file) {
        this.settings = settings;
        this.file = file;
    }

    /**
     * Reads a tokenizer, as a stream.
     *
     * @param settings what the manifest says of it
     * @param tokenizerJson the file, which the caller closes
     * @throws BundleException it is no tokenizer, has a part that is not supported, or the length leaves no room for
     *     text
     */
    public static Tokenizer open(TokenizerSettings settings, Reader tokenizerJson) {
        TokenizerFile file = TokenizerFile.read(tokenizerJson);
        int specials = file.specials().count();
        if (specials >= settings.maxLength()) {
            throw new BundleException(
                    "the tokenizer's " + settings.maxLength() + " tokens leave no room beside " + specials + " specials");
        }
        return new Tokenizer(settings, file);
    }

    /**
     * Tokenizes, cuts to the model's length (special tokens are kept) and pads.
     *
     * @throws InputException the text is blank, too long, not valid Unicode, or holds nothing that the tokenizer knows
     * @throws BundleException the tokenizer has no token for what it does not know, and the text needs one
     */
    public TokenIds encode(String text) {
        check(text);
        IntList tokens = new IntList();
        for (Piece piece : file.added().split(Canonicalization.apply(text, settings.canonicalize()))) {
            if (piece.isToken()) {
                tokens.add(piece.id());
            } else {
                for (Piece word : file.preTokenizer().split(piece)) {
                    file.model().tokenize(word.text(), tokens);
                }
            }
        }
        if (tokens.size() == 0) {
            throw new InputException("the text holds nothing that the model can read; use other words");
        }
        return padded(tokens);
    }

    private TokenIds padded(IntList tokens) {
        SpecialTokens specials = file.specials();
        int length = settings.maxLength();
        int room = length - specials.count();
        boolean truncated = tokens.size() > room;
        int kept = Math.min(tokens.size(), room);
        boolean cutStart = settings.truncate() == TokenizerSettings.Side.LEFT;
        int first = cutStart ? tokens.size() - kept : 0;
        int used = kept + specials.count();
        int at = settings.padSide() == TokenizerSettings.Side.LEFT ? length - used : 0;
        int[] ids = new int[length];
        int[] mask = new int[length];
        Arrays.fill(ids, settings.padId());
        Arrays.fill(mask, at, at + used, 1);
        for (int id : specials.before()) {
            ids[at++] = id;
        }
        for (int index = first; index < first + kept; index++) {
            ids[at++] = tokens.get(index);
        }
        for (int id : specials.after()) {
            ids[at++] = id;
        }
        return new TokenIds(ids, mask, truncated);
    }

    private static void check(String text) {
        int chars = text.codePointCount(0, text.length());
        if (chars > MOST_CHARS) {
            throw new InputException(
                    "the text has " + chars + " characters, and at most " + MOST_CHARS + " are read; shorten it");
        }
        int broken = Utf8.loneSurrogate(text);
        if (broken >= 0) {
            throw new InputException("the text is not valid Unicode at character " + broken + "; enter it again");
        }
        if (Canonicalization.isBlank(text)) {
            throw new InputException("the text is empty; enter one");
        }
    }
}
