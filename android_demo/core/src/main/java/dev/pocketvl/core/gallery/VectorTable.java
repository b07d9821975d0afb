package dev.pocketvl.core.gallery;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.PriorityQueue;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/** L2-normalised vectors in memory, by id, and the search through all of them. */
final class VectorTable {
    private static final int ROWS_PER_BLOCK = 4096; // so that growing copies nothing
    private static final float SLACK = 1e-5f; // more than sums in floats, of unit vectors, are off by

    private final int dimension;
    private final List<float[]> blocks = new ArrayList<>();
    private final Map<Long, Integer> rows = new HashMap<>();
    private long[] ids = new long[ROWS_PER_BLOCK];
    private long[] stamps = new long[ROWS_PER_BLOCK];

    VectorTable(int dimension) {
        this.dimension = dimension;
    }

    int size() {
        return rows.size();
    }

    Set<Long> ids() {
        return Set.copyOf(rows.keySet());
    }

    /** The stamp of an id, or null. */
    @Nullable Long stamp(long id) {
        Integer row = rows.get(id);
        return row == null ? null : stamps[row];
    }

    /** A copy of the vector of an id that is there. */
    float[] vector(long id) {
        float[] vector = new float[dimension];
        int row = rows.get(id);
        System.arraycopy(block(row), offset(row), vector, 0, dimension);
        return vector;
    }

    void put(long id, long stamp, float[] vector) {
        Integer known = rows.get(id);
        int row = known == null ? rows.size() : known;
        if (row == ids.length) {
            ids = Arrays.copyOf(ids, 2 * ids.length);
            stamps = Arrays.copyOf(stamps, 2 * stamps.length);
        }
        if (row / ROWS_PER_BLOCK == blocks.size()) {
            blocks.add(new float[ROWS_PER_BLOCK * dimension]);
        }
        rows.put(id, row);
        ids[row] = id;
        stamps[row] = stamp;
        System.arraycopy(vector, 0, block(row), offset(row), dimension);
    }

    /** Takes a vector out; the last one moves into its row. */
    void remove(long id) {
        Integer row = rows.remove(id);
        int last = rows.size();
        if (row == null || row == last) {
            return;
        }
        ids[row] = ids[last];
        stamps[row] = stamps[last];
        System.arraycopy(block(last), offset(last), block(row), offset(row), dimension);
        rows.put(ids[row], row);
    }

    /** The nearest vectors, the nearest first; of equal ones the one with the smaller id. */
    List<Hit> search(float[] query, int count) {
        PriorityQueue<Hit> best = new PriorityQueue<>(Math.max(1, count), (a, b) -> order(b, a));
        float least = Float.NEGATIVE_INFINITY;
        int size = rows.size();
        for (int start = 0; start < size; start += ROWS_PER_BLOCK) {
            float[] block = block(start);
            int end = Math.min(size, start + ROWS_PER_BLOCK);
            for (int row = start; row < end; row++) {
                float similarity = dot(query, block, offset(row));
                if (similarity >= least) {
                    best.add(new Hit(ids[row], exact(query, block, offset(row))));
                    if (best.size() > count) {
                        best.poll();
                        least = (float) best.element().similarity() - SLACK;
                    }
                }
            }
        }
        List<Hit> hits = new ArrayList<>(best);
        hits.sort(VectorTable::order);
        return hits;
    }

    private static int order(Hit one, Hit other) {
        int order = Double.compare(other.similarity(), one.similarity());
        return order != 0 ? order : Long.compare(one.id(), other.id());
    }

    private float[] block(int row) {
        return blocks.get(row / ROWS_PER_BLOCK);
    }

    private int offset(int row) {
        return row % ROWS_PER_BLOCK * dimension;
    }

    /** Eight sums at once: a single one would wait for itself at every step. */
    private static float dot(float[] query, float[] block, int offset) {
        float s0 = 0;
        float s1 = 0;
        float s2 = 0;
        float s3 = 0;
        float s4 = 0;
        float s5 = 0;
        float s6 = 0;
        float s7 = 0;
        int i = 0;
        for (; i + 8 <= query.length; i += 8) {
            int at = offset + i;
            s0 += query[i] * block[at];
            s1 += query[i + 1] * block[at + 1];
            s2 += query[i + 2] * block[at + 2];
            s3 += query[i + 3] * block[at + 3];
            s4 += query[i + 4] * block[at + 4];
            s5 += query[i + 5] * block[at + 5];
            s6 += query[i + 6] * block[at + 6];
            s7 += query[i + 7] * block[at + 7];
        }
        float sum = s0 + s1 + (s2 + s3) + (s4 + s5 + (s6 + s7));
        for (; i < query.length; i++) {
            sum += query[i] * block[offset + i];
        }
        return sum;
    }

    private static double exact(float[] query, float[] block, int offset) {
        double sum = 0;
        for (int i = 0; i < query.length; i++) {
            sum += (double) query[i] * block[offset + i];
        }
        return sum;
    }
}
