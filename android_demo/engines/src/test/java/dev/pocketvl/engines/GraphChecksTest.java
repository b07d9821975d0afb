package dev.pocketvl.engines;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import dev.pocketvl.core.engine.DType;
import dev.pocketvl.core.engine.TensorSpec;
import dev.pocketvl.core.errors.EngineException;
import java.util.List;
import org.junit.jupiter.api.Test;

final class GraphChecksTest {
    @Test
    void what_an_engine_says_is_one_short_line() {
        assertEquals("first", GraphChecks.firstLine(new IllegalStateException("  \n first\nsecond")));
        assertEquals("IllegalStateException", GraphChecks.firstLine(new IllegalStateException()));
        assertEquals("OutOfMemoryError", GraphChecks.firstLine(new OutOfMemoryError(" \n\t")));
        assertEquals("a".repeat(300), GraphChecks.firstLine(new IllegalStateException("a".repeat(300))));
        assertEquals("a".repeat(297) + "...", GraphChecks.firstLine(new IllegalStateException("a".repeat(301))));
    }

    @Test
    void sizes_that_no_buffer_holds_are_refused() {
        assertEquals(24, GraphChecks.byteCount(new TensorSpec("x", DType.FLOAT32, List.of(2, 3))));
        assertEquals(0, GraphChecks.byteCount(new TensorSpec("x", DType.FLOAT32, List.of(2, 0))));
        for (List<Integer> shape : List.of(List.of(1, -1), List.of(1 << 20, 1 << 20), List.of(-1, -1))) {
            TensorSpec spec = new TensorSpec("x", DType.FLOAT32, shape);
            assertThrows(EngineException.class, () -> GraphChecks.byteCount(spec));
        }
    }
}
