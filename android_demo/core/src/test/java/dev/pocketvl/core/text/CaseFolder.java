package dev.pocketvl.core.text;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.errors.InputException;
import dev.pocketvl.core.errors.PocketVLException;
import dev.pocketvl.core.text.TokenizerSettings.Canonicalize;
import dev.pocketvl.core.text.TokenizerSettings.Side;
import java.io.IOException;
import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Stream;

/** One tokenizer's folder as tests/android/write_texts.py writes it. */
final class CaseFolder {
    private final Path folder;
    private final JsonObject settings;

    CaseFolder(Path folder) throws IOException {
        this.folder = folder;
        settings = JsonParser.parseString(Files.readString(folder.resolve("settings.json"))).getAsJsonObject();
    }

    /** The folders of a pack. */
    static List<CaseFolder> all(Path pack) throws IOException {
        List<CaseFolder> folders = new ArrayList<>();
        try (Stream<Path> children = Files.list(pack)) {
            for (Path child : (Iterable<Path>) children.sorted()::iterator) {
                if (Files.isRegularFile(child.resolve("settings.json"))) {
                    folders.add(new CaseFolder(child));
                }
            }
        }
        return folders;
    }

    String name() {
        return folder.getFileName().toString();
    }

    /** How long Python took for all texts, in milliseconds. */
    double pythonMs() {
        return settings.get("python_ms").getAsDouble();
    }

    Tokenizer open() throws IOException {
        List<Canonicalize> steps = new ArrayList<>();
        for (JsonElement step : settings.getAsJsonArray("canonicalize")) {
            steps.add(Canonicalize.valueOf(step.getAsString()));
        }
        TokenizerSettings wanted =
                new TokenizerSettings(
                        settings.get("max_length").getAsInt(),
                        settings.get("pad_id").getAsInt(),
                        Side.valueOf(settings.get("pad_side").getAsString()),
                        Side.valueOf(settings.get("truncate").getAsString()),
                        steps);
        try (Reader reader = Files.newBufferedReader(folder.resolve("tokenizer.json"))) {
            return Tokenizer.open(wanted, reader);
        }
    }

    List<JsonObject> cases() throws IOException {
        List<JsonObject> cases = new ArrayList<>();
        for (String line : Files.readAllLines(folder.resolve("cases.jsonl"))) {
            cases.add(JsonParser.parseString(line).getAsJsonObject());
        }
        return cases;
    }

    /** The case that the tokenizer makes of a text, in the words of the file. */
    static String outcome(Tokenizer tokenizer, String text) {
        try {
            TokenIds ids = tokenizer.encode(text);
            return words(ids.ids(), ids.mask(), ids.truncated());
        } catch (InputException error) {
            return "InputError";
        } catch (BundleException error) {
            return "BundleError";
        } catch (PocketVLException error) {
            return error.toString();
        }
    }

    /** The case of the file, in the same words. */
    static String wanted(JsonObject wanted) {
        if (wanted.has("refused")) {
            return wanted.get("refused").getAsString();
        }
        int[] ids = new int[wanted.getAsJsonArray("ids").size()];
        for (int index = 0; index < ids.length; index++) {
            ids[index] = wanted.getAsJsonArray("ids").get(index).getAsInt();
        }
        int first = wanted.getAsJsonArray("tokens").get(0).getAsInt();
        int count = wanted.getAsJsonArray("tokens").get(1).getAsInt();
        int[] mask = new int[ids.length];
        Arrays.fill(mask, first, first + count, 1);
        return words(ids, mask, wanted.get("truncated").getAsBoolean());
    }

    private static String words(int[] ids, int[] mask, boolean truncated) {
        StringBuilder out = new StringBuilder();
        for (int index = 0; index < ids.length; index++) {
            out.append(mask[index] == 0 ? "(" + ids[index] + ")" : ids[index]).append(' ');
        }
        return out.append(truncated ? "cut" : "whole").toString();
    }
}
