package dev.pocketvl.core.gallery;

import dev.pocketvl.core.errors.InputException;
import dev.pocketvl.core.errors.StorageException;
import java.io.Closeable;
import java.io.IOException;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;

/**
 * Embeddings of pictures, kept in a file and searched in memory: a text's embedding finds the pictures that fit it. It
 * takes 4 bytes a number of each vector in memory. May be used from several threads; a search waits for a write.
 *
 * <p>Every change is in the file when its method returns, though only {@link #flush} makes sure that it survives a loss
 * of power; a record that does not is left out when the file is opened again.
 */
public final class Gallery implements Closeable {
    private static final int LEAST_STALE_RECORDS = 1_000;

    private final int dimension;
    private final VectorTable table;
    private final GalleryFile file;
    private final Path path;
    private int damaged;

    private Gallery(Path path, String space, int dimension) throws IOException {
        this.path = path;
        this.dimension = dimension;
        table = new VectorTable(dimension);
        file = GalleryFile.open(path, space, dimension, new GalleryFile.Records() {
            @Override
            public void stored(long id, long stamp, float[] vector) {
                table.put(id, stamp, vector);
            }

            @Override
            public void removed(long id) {
                table.remove(id);
            }

            @Override
            public void damaged() {
                damaged++;
            }
        });
    }

    /**
     * Opens a gallery, or makes an empty one.
     *
     * @param path of its file
     * @param space of the embeddings: {@code Model.space()}; vectors of another one mean nothing beside them
     * @param dimension of the embeddings: {@code Model.embeddingSize()}
     * @throws StorageException the file cannot be read or written, is no gallery, or is one of another space: delete
     *     it, and index again
     */
    public static Gallery open(Path path, String space, int dimension) {
        try {
            return new Gallery(path, space, dimension);
        } catch (IOException error) {
            throw failed(path, error);
        }
    }

    /** How many vectors it holds. */
    public synchronized int size() {
        return table.size();
    }

    /** How many records of the file were damaged when it was opened; what they held is to be indexed again. */
    public synchronized int damagedRecords() {
        return damaged;
    }

    /**
     * Whether a picture is stored as it is now.
     *
     * @param id of the picture
     * @param stamp what changes whenever the picture does, like its time of modification
     */
    public synchronized boolean contains(long id, long stamp) {
        Long known = table.stamp(id);
        return known != null && known == stamp;
    }

    /** The ids of all vectors. */
    public synchronized Set<Long> ids() {
        return table.ids();
    }

    /**
     * Stores a vector, in place of any of the same id.
     *
     * @param vector L2-normalised
     * @throws InputException it is of another length, or not finite
     * @throws StorageException it cannot be written
     */
    public synchronized void put(long id, long stamp, float[] vector) {
        check(vector);
        try {
            file.append(id, stamp, vector);
            table.put(id, stamp, vector);
            dropStale();
        } catch (IOException error) {
            throw failed(path, error);
        }
    }

    /**
     * Takes a vector out, if it is there.
     *
     * @throws StorageException that cannot be written
     */
    public synchronized void remove(long id) {
        if (table.stamp(id) == null) {
            return;
        }
        try {
            file.appendRemoval(id);
            table.remove(id);
            dropStale();
        } catch (IOException error) {
            throw failed(path, error);
        }
    }

    /**
     * The stored vectors that are nearest to one, the nearest first.
     *
     * @param query L2-normalised, of the same space
     * @param count how many at most
     * @throws InputException the query is of another length, or not finite, or {@code count} is below 1
     */
    public synchronized List<Hit> search(float[] query, int count) {
        check(query);
        if (count < 1) {
            throw new InputException("count is " + count + ", and at least 1 hit must be wanted");
        }
        return table.search(query, count);
    }

    /** Makes sure that all is on the disk. */
    public synchronized void flush() {
        try {
            file.force();
        } catch (IOException error) {
            throw failed(path, error);
        }
    }

    @Override
    public synchronized void close() {
        try {
            file.force();
            file.close();
        } catch (IOException error) {
            throw failed(path, error);
        }
    }

    /** Writes the file anew where more than half of it is replaced or removed. */
    private void dropStale() throws IOException {
        if (file.records() - table.size() > Math.max(LEAST_STALE_RECORDS, table.size())) {
            file.replaceBy(table);
        }
    }

    private static StorageException failed(Path path, IOException error) {
        return new StorageException("the gallery " + path + " cannot be read or written (" + error.getMessage()
                + "); free some space, or delete it and index the pictures again", error);
    }

    private void check(float[] vector) {
        if (vector.length != dimension) {
            throw new InputException("a vector has " + vector.length + " numbers, and this gallery's have "
                    + dimension + "; use the model that it was made with");
        }
        for (float value : vector) {
            if (!Float.isFinite(value)) {
                throw new InputException("a vector holds NaN or infinity; use another variant");
            }
        }
    }
}
