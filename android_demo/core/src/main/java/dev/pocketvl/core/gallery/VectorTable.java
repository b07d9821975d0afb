package dev.pocketvl.core.gallery;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.PriorityQueue;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * Vectors in memory, by id, and the exact search through all of them. Beside each stands an 8-bit code: a search reads
 * codes, a quarter of the bytes, and looks only at vectors of which their code cannot say that they are too far.
 */
final class VectorTable {
    private static final int ROWS_PER_BLOCK = 4096; // so that growing copies nothing

    private final int dimension;
    private final List<float[]> blocks = new ArrayList<>();
    private final List<byte[]> codes = new ArrayList<>();
    private final Map<Long, Integer> rows = new HashMap<>();
    private long[] ids = new long[ROWS_PER_BLOCK];
    private long[] stamps = new long[ROWS_PER_BLOCK];
    private float[] scales = new float[ROWS_PER_BLOCK];
    private float[] errors = new float[ROWS_PER_BLOCK]; // length of what a vector's code leaves out
    private float[] lengths = new float[ROWS_PER_BLOCK];

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
            scales = Arrays.copyOf(scales, 2 * scales.length);
            errors = Arrays.copyOf(errors, 2 * errors.length);
            lengths = Arrays.copyOf(lengths, 2 * lengths.length);
        }
        if (row / ROWS_PER_BLOCK == blocks.size()) {
            blocks.add(new float[ROWS_PER_BLOCK * dimension]);
            codes.add(new byte[ROWS_PER_BLOCK * dimension]);
        }
        rows.put(id, row);
        ids[row] = id;
        stamps[row] = stamp;
        System.arraycopy(vector, 0, block(row), offset(row), dimension);
        VectorCode code = VectorCode.of(vector);
        System.arraycopy(code.bytes(), 0, codes(row), offset(row), dimension);
        scales[row] = code.scale();
        errors[row] = code.error();
        lengths[row] = code.length();
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
        scales[row] = scales[last];
        errors[row] = errors[last];
        lengths[row] = lengths[last];
        System.arraycopy(block(last), offset(last), block(row), offset(row), dimension);
        System.arraycopy(codes(last), offset(last), codes(row), offset(row), dimension);
        rows.put(ids[row], row);
    }

    /** The nearest vectors, the nearest first; of equal ones the one with the smaller id. */
    List<Hit> search(float[] query, int count) {
        VectorCode code = VectorCode.of(query);
        double codeLength = (double) code.length() + code.error();
        PriorityQueue<Hit> best = new PriorityQueue<>((a, b) -> order(b, a));
        double least = Double.NEGATIVE_INFINITY;
        int size = rows.size();
        for (int start = 0; start < size; start += ROWS_PER_BLOCK) {
            byte[] block = codes(start);
            int end = Math.min(size, start + ROWS_PER_BLOCK);
            for (int row = start; row < end; row++) {
                double about = (double) code.scale() * scales[row] * dot(code.bytes(), block, offset(row));
                double off = codeLength * errors[row] + (double) code.error() * lengths[row];
                if (about + off >= least) {
                    best.add(new Hit(ids[row], exact(query, block(row), offset(row))));
                    if (best.size() > count) {
                        best.poll();
                        least = best.element().similarity();
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

    private byte[] codes(int row) {
        return codes.get(row / ROWS_PER_BLOCK);
    }

    private int offset(int row) {
        return row % ROWS_PER_BLOCK * dimension;
    }

    /** A loop that both HotSpot and Android's compiler turn into vector instructions. */
    private static int dot(byte[] query, byte[] block, int offset) {
        int sum = 0;
        for (int i = 0; i < query.length; i++) {
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
