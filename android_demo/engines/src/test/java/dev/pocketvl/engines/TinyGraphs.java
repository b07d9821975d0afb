package dev.pocketvl.engines;

import dev.pocketvl.core.engine.DType;
import dev.pocketvl.core.engine.GraphSpec;
import dev.pocketvl.core.engine.Tensor;
import dev.pocketvl.core.engine.TensorSpec;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;

/** The graphs of tests/bundles/format-2.0: one linear layer over 4 x 4 pixels, and the sum of the vectors of words. */
public final class TinyGraphs {
    private static final Path GRAPHS = Path.of("../../tests/bundles/format-2.0/graphs");
    public static final TensorSpec PIXELS = new TensorSpec("pixels", DType.UINT8, List.of(1, 4, 4, 3));
    public static final TensorSpec IDS = new TensorSpec("ids", DType.INT32, List.of(1, 12));
    public static final TensorSpec EMBEDDING = new TensorSpec("embedding", DType.FLOAT32, List.of(1, 8));

    private TinyGraphs() {}

    public static ByteBuffer image(String engine) {
        return read(GRAPHS.resolve("image_encoder.fp32." + engine));
    }

    public static GraphSpec imageSpec(String engine) {
        return spec(engine, "fp32", null, PIXELS, EMBEDDING);
    }

    public static GraphSpec spec(
            String engine, String precision, String minEngine, TensorSpec input, TensorSpec output) {
        return new GraphSpec(
                engine + "-" + precision + " image_encoder",
                "graphs/image_encoder." + precision + "." + engine,
                null,
                precision,
                minEngine,
                List.of(input),
                List.of(output));
    }

    public static Map<String, Tensor> pixels(int seed) {
        ByteBuffer data = ByteBuffer.allocateDirect(48).order(ByteOrder.nativeOrder());
        for (int i = 0; i < 48; i++) {
            data.put(i, (byte) (i * 37 + seed * 11 + 5));
        }
        return Map.of("pixels", new Tensor(DType.UINT8, new int[] {1, 4, 4, 3}, data));
    }

    public static float[] floats(Tensor tensor) {
        float[] values = new float[tensor.data().remaining() / Float.BYTES];
        tensor.data().duplicate().order(ByteOrder.nativeOrder()).asFloatBuffer().get(values);
        return values;
    }

    public static ByteBuffer read(Path file) {
        try {
            return direct(Files.readAllBytes(file));
        } catch (IOException error) {
            throw new java.io.UncheckedIOException(error);
        }
    }

    public static ByteBuffer direct(byte[] content) {
        return ByteBuffer.allocateDirect(content.length).put(content).rewind();
    }

    public static byte[] bytes(ByteBuffer content) {
        byte[] copy = new byte[content.remaining()];
        content.duplicate().get(copy);
        return copy;
    }
}
