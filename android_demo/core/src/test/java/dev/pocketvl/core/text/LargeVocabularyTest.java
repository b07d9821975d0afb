package dev.pocketvl.core.text;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.pocketvl.core.text.TokenizerSettings.Side;
import java.io.IOException;
import java.io.Reader;
import java.io.Writer;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collections;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A tokenizer of 256,000 tokens, as SigLIP 2's, opens in a moment and in little memory. */
class LargeVocabularyTest {
    private static final int TOKENS = 256_000;
    private static final double MOST_SECONDS = 15;
    private static final double MOST_HELD_MB = 40;
    private static final TokenizerSettings SETTINGS =
            new TokenizerSettings(64, 0, Side.RIGHT, Side.RIGHT, Collections.emptyList());

    @Test
    void itOpensInAMomentAndInLittleMemory(@TempDir Path folder) throws IOException {
        Path path = folder.resolve("tokenizer.json");
        int merges = write(path);
        assertTrue(merges > 500_000, "merges");
        double before = heldMb();
        long start = ManagementFactory.getThreadMXBean().getCurrentThreadCpuTime();
        Tokenizer tokenizer = open(path);
        double seconds = (ManagementFactory.getThreadMXBean().getCurrentThreadCpuTime() - start) / 1e9;
        double held = heldMb() - before;
        System.out.printf(
                "%d tokens and %d merges in %.1f MB: opened in %.2f s of the processor, %.1f MB of heap held%n",
                TOKENS, merges, Files.size(path) / 1e6, seconds, held);
        assertEquals(10, count(tokenizer.encode("two cats and a dog")));
        assertEquals(6, count(tokenizer.encode("abab \u732b")));
        assertTrue(seconds < MOST_SECONDS, seconds + " s");
        assertTrue(held < MOST_HELD_MB, held + " MB");
    }

    private static int count(TokenIds ids) {
        int count = 0;
        for (int one : ids.mask()) {
            count += one;
        }
        return count;
    }

    private static Tokenizer open(Path path) throws IOException {
        try (Reader reader = Files.newBufferedReader(path)) {
            return Tokenizer.open(SETTINGS, reader);
        }
    }

    private static double heldMb() {
        Runtime runtime = Runtime.getRuntime();
        for (int round = 0; round < 3; round++) {
            System.gc();
        }
        return (runtime.totalMemory() - runtime.freeMemory()) / 1e6;
    }

    /** Writes a byte-fallback BPE of the words of up to four letters, as far as they go; returns how many merges. */
    private static int write(Path path) throws IOException {
        String[] words = words();
        int merges = 0;
        try (Writer out = Files.newBufferedWriter(path)) {
            out.write("{\"version\":\"1.0\",\"added_tokens\":[],\"normalizer\":{\"type\":\"Replace\",\"pattern\":");
            out.write("{\"String\":\" \"},\"content\":\"\u2581\"},\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":");
            out.write("{\"String\":\" \"},\"behavior\":\"MergedWithPrevious\",\"invert\":false},\"post_processor\":");
            out.write("{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},");
            out.write("{\"SpecialToken\":{\"id\":\"<eos>\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{\"<eos>\":");
            out.write("{\"id\":\"<eos>\",\"ids\":[1],\"tokens\":[\"<eos>\"]}}},\"model\":{\"type\":\"BPE\",");
            out.write("\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true,");
            out.write("\"vocab\":{");
            for (int id = 0; id < words.length; id++) {
                out.write((id == 0 ? "\"" : ",\"") + words[id] + "\":" + id);
            }
            out.write("},\"merges\":[");
            int first = TOKENS - wordsOfLetters();
            for (int id = first; id < words.length; id++) {
                for (int cut = 1; cut < words[id].length(); cut++) {
                    String pair = "[\"" + words[id].substring(0, cut) + "\",\"" + words[id].substring(cut) + "\"]";
                    out.write(merges++ == 0 ? pair : "," + pair);
                }
            }
            out.write("]}}");
        }
        return merges;
    }

    private static int wordsOfLetters() {
        return TOKENS - 4 - 256 - 1 - 26;
    }

    private static String[] words() {
        String[] words = new String[TOKENS];
        int count = 0;
        for (String special : new String[] {"<pad>", "<eos>", "<bos>", "<unk>"}) {
            words[count++] = special;
        }
        for (int each = 0; each < 256; each++) {
            words[count++] = String.format("<0x%02X>", each);
        }
        words[count++] = "\u2581";
        for (int letter = 0; letter < 26; letter++) {
            words[count++] = String.valueOf((char) ('a' + letter));
        }
        for (int number = 0; count < TOKENS; number++) {
            words[count++] = word(number);
        }
        return words;
    }

    /** All words of two letters, then of three, then of four. */
    private static String word(int number) {
        int rest = number;
        int size = 26 * 26;
        int length = 2;
        while (rest >= size) {
            rest -= size;
            size *= 26;
            length++;
        }
        StringBuilder letters = new StringBuilder();
        for (int index = 0; index < length; index++) {
            letters.append((char) ('a' + rest % 26));
            rest /= 26;
        }
        return letters.reverse().toString();
    }
}
