package dev.pocketvl.core.engine;

/** Element types of graphs' inputs and outputs, by numpy's names as the manifest writes them. */
public enum DType {
    BOOL("bool", 1),
    INT8("int8", 1),
    UINT8("uint8", 1),
    INT32("int32", 4),
    INT64("int64", 8),
    FLOAT16("float16", 2),
    FLOAT32("float32", 4);

    private final String label;
    private final int bytes;

    DType(String label, int bytes) {
        this.label = label;
        this.bytes = bytes;
    }

    /** The name in manifests. */
    public String label() {
        return label;
    }

    /** Whether it holds fractions. */
    public boolean isFloat() {
        return this == FLOAT16 || this == FLOAT32;
    }

    /** The size of one element. */
    public int bytes() {
        return bytes;
    }
}
