package dev.pocketvl.core.gallery;

import dev.pocketvl.core.bench.LatencyStatistics;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Random;

/**
 * How long a search through 100,000 vectors of 256 takes on one core. After {@code mvn test-compile}:
 * {@code java -cp core/target/classes:core/target/test-classes dev.pocketvl.core.gallery.GallerySearchBench}
 */
final class GallerySearchBench {
    private static final int VECTORS = 100_000;
    private static final int DIMENSION = 256;
    private static final int WARMUP_RUNS = 20;
    private static final int RUNS = 100;
    private static final int HITS = 50;

    private GallerySearchBench() {}

    public static void main(String[] arguments) throws IOException {
        Path path = Files.createTempFile("gallery", ".bin");
        Random random = new Random(0);
        try (Gallery gallery = Gallery.open(path, "bench", DIMENSION)) {
            for (long id = 0; id < VECTORS; id++) {
                gallery.put(id, 0, GalleryTest.unit(random, DIMENSION));
            }
            double[] milliseconds = new double[RUNS];
            for (int run = -WARMUP_RUNS; run < RUNS; run++) {
                float[] query = GalleryTest.unit(random, DIMENSION);
                long start = System.nanoTime();
                int found = gallery.search(query, HITS).size();
                double taken = (System.nanoTime() - start) / 1e6;
                if (found != HITS) {
                    throw new IllegalStateException("found " + found);
                }
                if (run >= 0) {
                    milliseconds[run] = taken;
                }
            }
            System.out.println(LatencyStatistics.of(milliseconds));
            long start = System.nanoTime();
            try (Gallery again = Gallery.open(path, "bench", DIMENSION)) {
                System.out.printf("%d opened in %.0f ms%n", again.size(), (System.nanoTime() - start) / 1e6);
            }
        } finally {
            Files.delete(path);
        }
    }
}
