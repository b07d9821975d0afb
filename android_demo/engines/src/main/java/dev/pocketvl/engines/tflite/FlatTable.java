package dev.pocketvl.engines.tflite;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.util.AbstractList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A table of a FlatBuffers file, read with every offset checked by the buffer's own bounds.
 *
 * <p>Source: "FlatBuffer internals" (Google, the FlatBuffers documentation). Reading throws IndexOutOfBoundsException or
 * IllegalArgumentException where a file is damaged.
 */
final class FlatTable {
    private final ByteBuffer file;
    private final int start;

    private FlatTable(ByteBuffer file, int start) {
        this.file = file;
        this.start = start;
    }

    /** The table that a file begins with; {@code content} from its position to its limit. */
    static FlatTable root(ByteBuffer content) {
        ByteBuffer file = content.slice().order(ByteOrder.LITTLE_ENDIAN);
        return new FlatTable(file, file.getInt(0));
    }

    /** A whole number of 32 bits, or what it is where the file leaves it out. */
    int number(int field, int otherwise) {
        int at = at(field);
        return at == 0 ? otherwise : file.getInt(at);
    }

    /** A text, or null where the file has none. */
    @Nullable String text(int field) {
        int at = at(field);
        if (at == 0) {
            return null;
        }
        int vector = followed(at);
        ByteBuffer bytes = file.duplicate();
        bytes.position(vector + Integer.BYTES);
        bytes.limit(Math.addExact(vector + Integer.BYTES, file.getInt(vector)));
        try {
            CharBuffer text = StandardCharsets.UTF_8.newDecoder().decode(bytes);
            return text.toString();
        } catch (CharacterCodingException error) {
            throw new IllegalArgumentException("a name is no UTF-8", error);
        }
    }

    /** A list of tables; empty where the file has none. */
    List<FlatTable> tables(int field) {
        int at = at(field);
        int vector = at == 0 ? 0 : followed(at);
        int size = at == 0 ? 0 : size(vector);
        return new AbstractList<>() {
            @Override
            public FlatTable get(int index) {
                return new FlatTable(file, followed(element(vector, index, size)));
            }

            @Override
            public int size() {
                return size;
            }
        };
    }

    /** A list of whole numbers of 32 bits; empty where the file has none. */
    List<Integer> numbers(int field) {
        int at = at(field);
        int vector = at == 0 ? 0 : followed(at);
        int size = at == 0 ? 0 : size(vector);
        return new AbstractList<>() {
            @Override
            public Integer get(int index) {
                return file.getInt(element(vector, index, size));
            }

            @Override
            public int size() {
                return size;
            }
        };
    }

    /** Where a field lies in the file; 0 where the table leaves it out. */
    private int at(int field) {
        int vtable = Math.subtractExact(start, file.getInt(start));
        int entry = 2 * Short.BYTES + Short.BYTES * field;
        int vtableSize = Short.toUnsignedInt(file.getShort(vtable));
        if (entry + Short.BYTES > vtableSize) {
            return 0;
        }
        int offset = Short.toUnsignedInt(file.getShort(vtable + entry));
        return offset == 0 ? 0 : start + offset;
    }

    /** Where an offset leads that lies somewhere. */
    private int followed(int at) {
        int offset = file.getInt(at);
        if (offset <= 0) {
            throw new IllegalArgumentException("an offset of " + offset);
        }
        return Math.addExact(at, offset);
    }

    /** The length of a vector of 4-byte elements, which must lie in the file. */
    private int size(int vector) {
        int size = file.getInt(vector);
        if (size < 0 || size > (file.limit() - vector) / Integer.BYTES) {
            throw new IllegalArgumentException("a list of " + size + " elements in a file of " + file.limit() + " bytes");
        }
        return size;
    }

    private static int element(int vector, int index, int size) {
        if (index < 0 || index >= size) {
            throw new IndexOutOfBoundsException(index + " of " + size);
        }
        return vector + Integer.BYTES + Integer.BYTES * index;
    }
}
