package dev.pocketvl.core.gallery;

import dev.pocketvl.core.errors.BundleException;
import dev.pocketvl.core.errors.Quoted;
import dev.pocketvl.core.errors.StorageException;
import java.io.Closeable;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.zip.CRC32;

/**
 * The file of a gallery, as docs/GALLERY.md describes it: a header and records of one length, each with a checksum,
 * which are only ever appended.
 */
final class GalleryFile implements Closeable {
    private static final byte[] MAGIC = "PVLGAL01".getBytes(StandardCharsets.US_ASCII);
    private static final int FIXED_HEADER_BYTES = 20;
    private static final int FIXED_RECORD_BYTES = 20;
    private static final int CRC_BYTES = 4;
    private static final int REMOVED = 0;
    private static final int STORED = 1;
    private static final int MAX_SPACE_BYTES = 1_020;
    private static final int RECORDS_PER_READ = 256;

    private final Path path;
    private final byte[] header;
    private final int dimension;
    private FileChannel channel;
    private long records;

    /** Takes the records of a file, in their order. */
    interface Records {
        void stored(long id, long stamp, float[] vector);

        void removed(long id);

        /** A record that is not what was written. */
        void damaged();
    }

    private GalleryFile(Path path, byte[] header, int dimension, FileChannel channel) {
        this.path = path;
        this.header = header;
        this.dimension = dimension;
        this.channel = channel;
    }

    /**
     * Opens a file and reads it, or makes it. A record that was cut short at the end is taken away.
     *
     * @throws StorageException it is no such file, or holds vectors of another space or length
     */
    static GalleryFile open(Path path, String space, int dimension, Records into) throws IOException {
        byte[] header = header(space, dimension);
        FileChannel channel = FileChannel.open(
                path, StandardOpenOption.READ, StandardOpenOption.WRITE, StandardOpenOption.CREATE);
        GalleryFile file = new GalleryFile(path, header, dimension, channel);
        try {
            if (channel.size() < header.length && channel.size() < FIXED_HEADER_BYTES) {
                channel.truncate(0); // it was made, and its header never written
                writeAll(channel, ByteBuffer.wrap(header), 0);
            } else {
                file.checkHeader();
                file.read(into);
            }
            return file;
        } catch (IOException | RuntimeException error) {
            channel.close();
            throw error;
        }
    }

    /** How many records it holds, those included that later ones replace. */
    long records() {
        return records;
    }

    void append(long id, long stamp, float[] vector) throws IOException {
        writeAll(channel, record(id, stamp, STORED, vector), place(records));
        records++;
    }

    void appendRemoval(long id) throws IOException {
        writeAll(channel, record(id, 0, REMOVED, new float[dimension]), place(records));
        records++;
    }

    /** Writes what is in memory onto the disk. */
    void force() throws IOException {
        channel.force(false);
    }

    /** Writes the file anew, beside the old one, and puts it in its place at once. */
    void replaceBy(VectorTable table) throws IOException {
        Path fresh = path.resolveSibling(path.getFileName() + ".new");
        FileChannel next = FileChannel.open(fresh, StandardOpenOption.READ, StandardOpenOption.WRITE,
                StandardOpenOption.CREATE, StandardOpenOption.TRUNCATE_EXISTING);
        try {
            writeAll(next, ByteBuffer.wrap(header), 0);
            long written = 0;
            for (long id : table.ids()) {
                Long stamp = table.stamp(id);
                writeAll(next, record(id, stamp == null ? 0 : stamp, STORED, table.vector(id)), place(written++));
            }
            next.force(true);
            Files.move(fresh, path, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
            channel.close();
            channel = next;
            records = written;
        } catch (IOException error) {
            next.close();
            throw error;
        }
    }

    @Override
    public void close() throws IOException {
        channel.close();
    }

    private void checkHeader() throws IOException {
        byte[] found = new byte[header.length];
        ByteBuffer buffer = ByteBuffer.wrap(found);
        while (buffer.hasRemaining() && channel.read(buffer, buffer.position()) >= 0) {
            continue;
        }
        if (!Arrays.equals(Arrays.copyOf(found, MAGIC.length), MAGIC)) {
            throw new StorageException(path + " is no gallery; give another place, or delete it");
        }
        if (!Arrays.equals(found, header)) {
            throw new StorageException(path + " holds vectors of another model, or its header is damaged; "
                    + "delete it, and index the pictures again");
        }
    }

    private void read(Records into) throws IOException {
        int length = recordBytes();
        records = (channel.size() - header.length) / length;
        channel.truncate(place(records));
        byte[] chunk = new byte[RECORDS_PER_READ * length];
        for (long first = 0; first < records; first += RECORDS_PER_READ) {
            int count = (int) Math.min(RECORDS_PER_READ, records - first);
            ByteBuffer buffer = ByteBuffer.wrap(chunk, 0, count * length).order(ByteOrder.LITTLE_ENDIAN);
            long start = place(first);
            while (buffer.hasRemaining() && channel.read(buffer, start + buffer.position()) >= 0) {
                continue;
            }
            for (int i = 0; i < count; i++) {
                readRecord(buffer, i * length, into);
            }
        }
    }

    private void readRecord(ByteBuffer buffer, int at, Records into) {
        int length = recordBytes() - CRC_BYTES;
        if (crc(buffer.array(), at, length) != buffer.getInt(at + length)) {
            into.damaged();
            return;
        }
        long id = buffer.getLong(at);
        if (buffer.getInt(at + 16) == REMOVED) {
            into.removed(id);
            return;
        }
        float[] vector = new float[dimension];
        for (int i = 0; i < dimension; i++) {
            vector[i] = buffer.getFloat(at + FIXED_RECORD_BYTES + Float.BYTES * i);
        }
        into.stored(id, buffer.getLong(at + 8), vector);
    }

    private ByteBuffer record(long id, long stamp, int state, float[] vector) {
        ByteBuffer buffer = ByteBuffer.allocate(recordBytes()).order(ByteOrder.LITTLE_ENDIAN);
        buffer.putLong(id).putLong(stamp).putInt(state);
        for (float value : vector) {
            buffer.putFloat(value);
        }
        buffer.putInt(crc(buffer.array(), 0, buffer.position()));
        return ByteBuffer.wrap(buffer.array());
    }

    private static byte[] header(String space, int dimension) {
        byte[] name = space.getBytes(StandardCharsets.UTF_8);
        if (name.length > MAX_SPACE_BYTES) {
            throw new BundleException("space " + Quoted.quoted(space) + " has more than " + MAX_SPACE_BYTES
                    + " bytes; export the bundle again");
        }
        ByteBuffer buffer = ByteBuffer.allocate(FIXED_HEADER_BYTES + name.length + CRC_BYTES)
                .order(ByteOrder.LITTLE_ENDIAN);
        buffer.put(MAGIC).putInt(dimension).putInt(FIXED_RECORD_BYTES + Float.BYTES * dimension + CRC_BYTES);
        buffer.putInt(name.length).put(name);
        buffer.putInt(crc(buffer.array(), 0, buffer.position()));
        return buffer.array();
    }

    private int recordBytes() {
        return FIXED_RECORD_BYTES + Float.BYTES * dimension + CRC_BYTES;
    }

    private long place(long record) {
        return header.length + record * recordBytes();
    }

    private static int crc(byte[] bytes, int start, int length) {
        CRC32 crc = new CRC32();
        crc.update(bytes, start, length);
        return (int) crc.getValue();
    }

    private static void writeAll(FileChannel channel, ByteBuffer buffer, long place) throws IOException {
        int start = buffer.position();
        while (buffer.hasRemaining()) {
            channel.write(buffer, place + buffer.position() - start);
        }
    }
}
