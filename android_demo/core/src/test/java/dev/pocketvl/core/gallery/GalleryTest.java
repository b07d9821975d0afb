package dev.pocketvl.core.gallery;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.pocketvl.core.errors.InputException;
import dev.pocketvl.core.errors.StorageException;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class GalleryTest {
    private static final int DIMENSION = 19; // eight sums do not divide it
    private static final int RECORD_BYTES = 24 + 4 * DIMENSION;
    private static final int HEADER_BYTES = 20 + "space".length() + 4;

    @TempDir
    Path folder;

    private Path path() {
        return folder.resolve("gallery");
    }

    private Gallery open() {
        return Gallery.open(path(), "space", DIMENSION);
    }

    static float[] unit(Random random, int dimension) {
        float[] vector = new float[dimension];
        double squares = 0;
        for (int i = 0; i < dimension; i++) {
            vector[i] = (float) random.nextGaussian();
            squares += (double) vector[i] * vector[i];
        }
        for (int i = 0; i < dimension; i++) {
            vector[i] /= (float) Math.sqrt(squares);
        }
        return vector;
    }

    private static double dot(float[] one, float[] other) {
        double sum = 0;
        for (int i = 0; i < one.length; i++) {
            sum += (double) one[i] * other[i];
        }
        return sum;
    }

    /** Stores so many vectors under 0, 1, 2, ... with the id as stamp. */
    private Map<Long, float[]> fill(Gallery gallery, int count) {
        Random random = new Random(0);
        Map<Long, float[]> stored = new HashMap<>();
        for (long id = 0; id < count; id++) {
            stored.put(id, unit(random, DIMENSION));
            gallery.put(id, id, stored.get(id));
        }
        return stored;
    }

    private static List<Long> expected(Map<Long, float[]> stored, float[] query, int count) {
        return stored.keySet().stream()
                .sorted(Comparator.comparingDouble((Long id) -> -dot(stored.get(id), query)).thenComparing(id -> id))
                .limit(count)
                .collect(Collectors.toList());
    }

    private static List<Long> ids(List<Hit> hits) {
        return hits.stream().map(Hit::id).collect(Collectors.toList());
    }

    @Test
    void aSearchFindsWhatSortingAllWouldFind() {
        Random random = new Random(1);
        try (Gallery gallery = open()) {
            Map<Long, float[]> stored = fill(gallery, 9_000);
            for (int count : new int[] {1, 2, 50, 10_000}) {
                float[] query = unit(random, DIMENSION);
                List<Hit> hits = gallery.search(query, count);
                assertEquals(expected(stored, query, count), ids(hits));
                assertEquals(dot(stored.get(hits.get(0).id()), query), hits.get(0).similarity());
            }
        }
    }

    @Test
    void ofEqualVectorsTheSmallerIdsComeFirst() {
        float[] vector = unit(new Random(0), DIMENSION);
        try (Gallery gallery = open()) {
            for (long id : new long[] {5, 3, 9, 1, 7}) {
                gallery.put(id, 0, vector);
            }
            assertEquals(List.of(1L, 3L, 5L), ids(gallery.search(vector, 3)));
        }
    }

    @Test
    void whatWasStoredIsThereWhenItIsOpenedAgain() {
        Map<Long, float[]> stored;
        try (Gallery gallery = open()) {
            stored = fill(gallery, 300);
            gallery.remove(7);
            gallery.remove(299);
            gallery.remove(1_000);
            float[] other = unit(new Random(5), DIMENSION);
            gallery.put(8, 80, other);
            stored.put(8L, other);
            stored.keySet().removeAll(Set.of(7L, 299L));
        }
        try (Gallery gallery = open()) {
            assertEquals(298, gallery.size());
            assertEquals(stored.keySet(), gallery.ids());
            assertTrue(gallery.contains(8, 80));
            assertFalse(gallery.contains(8, 8));
            assertFalse(gallery.contains(7, 7));
            assertEquals(0, gallery.damagedRecords());
            float[] query = unit(new Random(2), DIMENSION);
            assertEquals(expected(stored, query, 298), ids(gallery.search(query, 500)));
        }
    }

    @Test
    void aRecordThatWasCutShortIsLeftOutAndWrittenOver() throws IOException {
        try (Gallery gallery = open()) {
            fill(gallery, 10);
        }
        try (RandomAccessFile file = new RandomAccessFile(path().toFile(), "rw")) {
            file.setLength(file.length() - 5);
        }
        try (Gallery gallery = open()) {
            assertEquals(9, gallery.size());
            assertFalse(gallery.contains(9, 9));
            gallery.put(9, 9, unit(new Random(3), DIMENSION));
        }
        try (Gallery gallery = open()) {
            assertEquals(10, gallery.size());
            assertEquals(0, gallery.damagedRecords());
        }
        assertEquals(HEADER_BYTES + 10 * RECORD_BYTES, Files.size(path()));
    }

    @Test
    void everyFlippedBitOfARecordTakesOutThatRecordAlone() throws IOException {
        try (Gallery gallery = open()) {
            fill(gallery, 10);
        }
        byte[] whole = Files.readAllBytes(path());
        Random random = new Random(0);
        for (int turn = 0; turn < 200; turn++) {
            int place = random.nextInt(10 * RECORD_BYTES);
            byte[] damaged = whole.clone();
            damaged[HEADER_BYTES + place] ^= (byte) (1 << random.nextInt(8));
            Files.write(path(), damaged);
            try (Gallery gallery = open()) {
                long lost = place / RECORD_BYTES;
                assertEquals(1, gallery.damagedRecords());
                assertEquals(9, gallery.size());
                assertFalse(gallery.contains(lost, lost));
            }
        }
    }

    @Test
    void everyFlippedBitOfTheHeaderIsRefused() throws IOException {
        open().close();
        byte[] whole = Files.readAllBytes(path());
        for (int place = 0; place < HEADER_BYTES; place++) {
            byte[] damaged = whole.clone();
            damaged[place] ^= 1;
            Files.write(path(), damaged);
            assertThrows(StorageException.class, this::open);
        }
    }

    @Test
    void anotherSpaceOrLengthOrFileIsRefusedWithAdvice() throws IOException {
        open().close();
        String said = assertThrows(StorageException.class, () -> Gallery.open(path(), "other", DIMENSION)).getMessage();
        assertTrue(said.contains("holds vectors of another model") && said.contains("delete it"), said);
        assertThrows(StorageException.class, () -> Gallery.open(path(), "space", DIMENSION + 1));
        Files.write(path(), new byte[1_000]);
        assertTrue(assertThrows(StorageException.class, this::open).getMessage().contains("is no gallery"));
        Path nowhere = folder.resolve("none").resolve("gallery");
        assertTrue(assertThrows(StorageException.class, () -> Gallery.open(nowhere, "space", 4))
                .getMessage()
                .contains("cannot be read or written"));
    }

    @Test
    void aFileWhoseHeaderWasNeverWrittenIsAnEmptyGallery() throws IOException {
        Files.write(path(), new byte[0]);
        try (Gallery gallery = open()) {
            assertEquals(0, gallery.size());
            assertEquals(List.of(), gallery.search(unit(new Random(0), DIMENSION), 3));
        }
        open().close();
    }

    @Test
    void aFileThatIsMostlyStaleIsWrittenAnew() throws IOException {
        Map<Long, float[]> stored = new HashMap<>();
        Random random = new Random(4);
        try (Gallery gallery = open()) {
            for (int i = 0; i < 5_000; i++) {
                long id = i % 50;
                stored.put(id, unit(random, DIMENSION));
                gallery.put(id, i, stored.get(id));
            }
        }
        assertTrue(Files.size(path()) <= HEADER_BYTES + 1_100L * RECORD_BYTES);
        try (Gallery gallery = open()) {
            float[] query = unit(random, DIMENSION);
            assertEquals(expected(stored, query, 50), ids(gallery.search(query, 50)));
            assertTrue(gallery.contains(49, 4_999));
        }
    }

    @Test
    void whatIsNoVectorIsRefused() {
        try (Gallery gallery = open()) {
            float[] nan = new float[DIMENSION];
            nan[3] = Float.NaN;
            assertThrows(InputException.class, () -> gallery.put(1, 1, nan));
            assertThrows(InputException.class, () -> gallery.search(nan, 1));
            assertThrows(InputException.class, () -> gallery.put(1, 1, new float[DIMENSION - 1]));
            assertThrows(InputException.class, () -> gallery.search(new float[DIMENSION], 0));
            assertEquals(0, gallery.size());
        }
    }

    @Test
    void itMayBeSearchedWhileItIsFilled() throws InterruptedException {
        List<Throwable> failed = new ArrayList<>();
        try (Gallery gallery = open()) {
            Thread filling = new Thread(() -> fill(gallery, 3_000));
            filling.setUncaughtExceptionHandler((thread, error) -> failed.add(error));
            filling.start();
            float[] query = unit(new Random(6), DIMENSION);
            while (filling.isAlive()) {
                assertTrue(gallery.search(query, 5).size() <= 5);
            }
            filling.join();
            assertEquals(List.of(), failed);
            assertEquals(3_000, gallery.size());
        }
    }
}
