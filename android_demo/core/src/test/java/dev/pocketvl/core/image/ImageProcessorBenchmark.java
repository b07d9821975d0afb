package dev.pocketvl.core.image;

import dev.pocketvl.core.image.ImageSettings.Alpha;
import dev.pocketvl.core.image.ImageSettings.CenterCrop;
import dev.pocketvl.core.image.ImageSettings.Filter;
import dev.pocketvl.core.image.ImageSettings.Mode;
import dev.pocketvl.core.image.ImageSettings.Orientation;
import dev.pocketvl.core.image.ImageSettings.Resize;
import dev.pocketvl.core.image.ImageSettings.Rounding;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.zip.CRC32;

/**
 * Times the processor when it is told to, so that bench/android_core.py can take turns with Python.
 *
 * <p>A line {@code WIDTH HEIGHT ORIENTATION SEED MODE SIZE FILTER} on standard input makes a picture, {@link Waves} of
 * the seed, and a processor to SIZE x SIZE; the answer is its number. A line with a number runs it; the answer is
 * {@code NANOSECONDS CPU_NANOSECONDS CRC32}: by the clock, of the thread, and of the pixels.
 */
public final class ImageProcessorBenchmark {
    private record Task(Picture picture, ImageProcessor processor) {}

    private ImageProcessorBenchmark() {}

    public static void main(String[] args) throws IOException {
        ThreadMXBean threads = ManagementFactory.getThreadMXBean();
        List<Task> tasks = new ArrayList<>();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            String[] words = line.split(" ");
            if (words.length > 1) {
                tasks.add(task(words));
                System.out.println(tasks.size() - 1);
                continue;
            }
            Task task = tasks.get(Integer.parseInt(line));
            long cpuBegin = threads.getCurrentThreadCpuTime();
            long begin = System.nanoTime();
            byte[] pixels = task.processor().pixels(task.picture());
            long time = System.nanoTime() - begin;
            long cpuTime = threads.getCurrentThreadCpuTime() - cpuBegin;
            CRC32 crc = new CRC32();
            crc.update(pixels);
            System.out.println(time + " " + cpuTime + " " + crc.getValue());
        }
    }

    private static Task task(String[] words) {
        int width = Integer.parseInt(words[0]);
        int height = Integer.parseInt(words[1]);
        int[] argb = Waves.argb(width, height, Integer.parseInt(words[3]), true);
        Picture picture = new Picture(width, height, argb, Integer.parseInt(words[2]));
        Mode mode = Mode.valueOf(words[4].toUpperCase(Locale.ROOT));
        int size = Integer.parseInt(words[5]);
        Filter filter = Filter.valueOf(words[6].toUpperCase(Locale.ROOT));
        int edge = mode == Mode.EXACT ? 0 : size;
        Resize resize = new Resize(mode, edge, size - edge, size - edge, filter, true, Rounding.FLOOR);
        CenterCrop crop = new CenterCrop(size, size, Rounding.FLOOR);
        ImageSettings settings =
                new ImageSettings(Orientation.EXIF, Alpha.OVER_WHITE, List.of(resize, crop), size, size);
        return new Task(picture, new ImageProcessor(settings));
    }
}
