package dev.pocketvl.core.tasks;

import dev.pocketvl.core.bundle.Bundle;
import dev.pocketvl.core.bundle.FolderSource;
import dev.pocketvl.core.image.ImageProcessor;
import dev.pocketvl.core.image.ImageSettings;
import dev.pocketvl.core.image.ImageSettings.Alpha;
import dev.pocketvl.core.image.ImageSettings.CenterCrop;
import dev.pocketvl.core.image.ImageSettings.Filter;
import dev.pocketvl.core.image.ImageSettings.Mode;
import dev.pocketvl.core.image.ImageSettings.Orientation;
import dev.pocketvl.core.image.ImageSettings.Resize;
import dev.pocketvl.core.image.ImageSettings.Rounding;
import dev.pocketvl.core.image.Picture;
import dev.pocketvl.core.image.Waves;
import dev.pocketvl.core.manifest.Activation;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.function.Supplier;
import java.util.stream.IntStream;
import java.util.zip.CRC32;

/**
 * Times the core's own work when it is told to, so that bench/android_core.py can take turns with Python.
 *
 * <p>A line on standard input makes a task, and the answer is its number:
 *
 * <ul>
 *   <li>{@code picture WIDTH HEIGHT ORIENTATION SEED MODE SIZE FILTER}: {@link Waves} of the seed to SIZE x SIZE pixels;
 *   <li>{@code tokens BUNDLE PROCESSOR FILE}: each line of the file, UTF-8, to ids;
 *   <li>{@code ranking FILE SIZE SCALE}: vectors of SIZE floats, little-endian; all others are ranked for the first by
 *       softmax(SCALE * cosine).
 * </ul>
 *
 * <p>A line with a number runs it; the answer is {@code NANOSECONDS CPU_NANOSECONDS CRC32}: by the clock, of the thread,
 * and of the pixels, the ids, or the numbers of the ranked vectors, each as 4 bytes, little-endian.
 */
public final class CoreBenchmark {
    private CoreBenchmark() {}

    public static void main(String[] args) throws IOException {
        ThreadMXBean threads = ManagementFactory.getThreadMXBean();
        List<Supplier<byte[]>> tasks = new ArrayList<>();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split(" ");
            if (words.length > 1) {
                tasks.add(task(words));
                System.out.println(tasks.size() - 1);
                continue;
            }
            Supplier<byte[]> task = tasks.get(Integer.parseInt(line));
            long cpuBegin = threads.getCurrentThreadCpuTime();
            long begin = System.nanoTime();
            byte[] made = task.get();
            long time = System.nanoTime() - begin;
            long cpuTime = threads.getCurrentThreadCpuTime() - cpuBegin;
            CRC32 crc = new CRC32();
            crc.update(made);
            System.out.println(time + " " + cpuTime + " " + crc.getValue());
        }
    }

    private static Supplier<byte[]> task(String[] words) throws IOException {
        switch (words[0]) {
            case "picture":
                return picture(words);
            case "tokens":
                return tokens(Path.of(words[1]), words[2], Path.of(words[3]));
            case "ranking":
                return ranking(Path.of(words[1]), Integer.parseInt(words[2]), Double.parseDouble(words[3]));
            default:
                throw new IllegalArgumentException(words[0]);
        }
    }

    private static Supplier<byte[]> picture(String[] words) {
        int width = Integer.parseInt(words[1]);
        int height = Integer.parseInt(words[2]);
        int[] argb = Waves.argb(width, height, Integer.parseInt(words[4]), true);
        Picture picture = new Picture(width, height, argb, Integer.parseInt(words[3]));
        Mode mode = Mode.valueOf(words[5].toUpperCase(Locale.ROOT));
        int size = Integer.parseInt(words[6]);
        Filter filter = Filter.valueOf(words[7].toUpperCase(Locale.ROOT));
        int edge = mode == Mode.EXACT ? 0 : size;
        Resize resize = new Resize(mode, edge, size - edge, size - edge, filter, true, Rounding.FLOOR);
        CenterCrop crop = new CenterCrop(size, size, Rounding.FLOOR);
        ImageSettings settings =
                new ImageSettings(Orientation.EXIF, Alpha.OVER_WHITE, List.of(resize, crop), size, size);
        ImageProcessor processor = new ImageProcessor(settings);
        return () -> processor.pixels(picture);
    }

    private static Supplier<byte[]> tokens(Path bundle, String processor, Path file) throws IOException {
        List<String> texts = Files.readAllLines(file);
        Processors processors = new Processors(Bundle.open(new FolderSource(bundle)));
        processors.prepare(processor);
        return () -> bytes(texts.stream().flatMapToInt(text -> IntStream.of(processors.ids(processor, text).ids()))
                .toArray());
    }

    private static Supplier<byte[]> ranking(Path file, int size, double scale) throws IOException {
        ByteBuffer values = ByteBuffer.wrap(Files.readAllBytes(file)).order(ByteOrder.LITTLE_ENDIAN);
        List<float[]> vectors = new ArrayList<>();
        while (values.hasRemaining()) {
            float[] vector = new float[size];
            values.asFloatBuffer().get(vector);
            values.position(values.position() + size * Float.BYTES);
            vectors.add(vector);
        }
        float[] first = vectors.remove(0);
        return () -> bytes(ranked(first, vectors, scale));
    }

    /** As {@link Model#match} does after the embeddings, and {@link Match#ranked}. */
    private static int[] ranked(float[] first, List<float[]> vectors, double scale) {
        double[] cosines = vectors.stream()
                .mapToDouble(vector -> Probabilities.similarity(first, vector))
                .toArray();
        double[] logits = IntStream.range(0, cosines.length)
                .mapToDouble(i -> scale * cosines[i])
                .toArray();
        double[] probabilities = Probabilities.of(logits, Activation.SOFTMAX);
        List<Score> scores = new ArrayList<>();
        for (int i = 0; i < cosines.length; i++) {
            scores.add(new Score(String.valueOf(i), cosines[i], probabilities[i]));
        }
        Match match = new Match(scores, List.of(), new StageClock().times());
        return match.ranked().stream()
                .mapToInt(score -> Integer.parseInt(score.text()))
                .toArray();
    }

    private static byte[] bytes(int[] values) {
        ByteBuffer bytes = ByteBuffer.allocate(values.length * Integer.BYTES).order(ByteOrder.LITTLE_ENDIAN);
        bytes.asIntBuffer().put(values);
        return bytes.array();
    }
}
